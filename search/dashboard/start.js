// Starts Dash. In a file, because the content security policy forbids inline scripts.
window.renderer = new DashRenderer();
