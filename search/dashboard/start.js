// Starts Dash; a file, so that the page needs no inline script.
window.renderer = new DashRenderer();
