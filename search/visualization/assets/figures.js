// Draws every <div class="figure" data-figure="Plotly's JSON">, now and whenever one comes or changes.
(() => {
  "use strict";
  const plots = new Map();  // name → {node, source}: a plot outlives the element that holds it
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = {displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true, doubleClick: "reset+autosize",
    modeBarButtonsToRemove: ["toImage", "sendDataToCloud", "sendChartToCloud"]};

  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function themed(layout) {
    const ink = style("--ink"), line = style("--line");
    const axis = {color: ink, gridcolor: line, linecolor: line, zerolinecolor: line};
    const found = {...layout, uirevision: "kept", font: {...layout.font, color: ink},
      hoverlabel: {...layout.hoverlabel, bgcolor: style("--paper"), bordercolor: line, font: {color: ink}},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: style("--soft"), activecolor: style("--mark")}};
    for (const name of new Set([...Object.keys(layout), "xaxis", "yaxis"]))
      if (/^[xy]axis\d*$/.test(name)) found[name] = {...axis, ...layout[name], title: {font: {size: 13}, ...(layout[name] || {}).title}};
    if (layout.scene) {
      found.scene = {...layout.scene};
      for (const name of ["xaxis", "yaxis", "zaxis"]) found.scene[name] = {...axis, backgroundcolor: "rgba(0,0,0,0)", ...layout.scene[name]};
    }
    return found;
  }

  function navigate(href) {
    const url = new URL(href, window.location);
    if (window.dash_clientside && window.dash_clientside.set_props && document.getElementById("page"))
      window.dash_clientside.set_props("url", {pathname: url.pathname, search: url.search});
    else window.location.assign(href);
  }
  function ask(changes) {
    const query = new URLSearchParams(window.location.search);
    for (const [key, value] of Object.entries(changes)) value === null ? query.delete(key) : query.set(key, value);
    const text = query.toString();
    if (`?${text}` !== window.location.search) navigate(window.location.pathname + (text ? `?${text}` : ""));
  }

  const round = value => Number(value.toPrecision(4));
  function corners(event) {
    if (event.lassoPoints) {
      const {x, y} = event.lassoPoints, step = Math.ceil(x.length / 60);
      return x.map((each, at) => [round(each), round(y[at])]).filter((_, at) => at % step === 0);
    }
    if (!event.range || !event.range.x || !event.range.y) return [];
    const [[a, b], [c, d]] = [event.range.x.map(round), event.range.y.map(round)];
    return [[a, c], [b, c], [b, d], [a, d]];
  }
  function listen(node) {
    const holder = () => node.parentElement.dataset;
    node.on("plotly_click", event => {
      const number = event.points[0] && event.points[0].customdata;
      if (number === undefined) return;
      if (holder().place) navigate(`${holder().place}/trial?trial=${number}`);
      else window.dispatchEvent(new CustomEvent("trial", {detail: number}));
    });
    let drawing = false;  // a lasso is being drawn: a selection that comes with a figure is told as selected too
    node.on("plotly_selecting", () => { drawing = true; });
    node.on("plotly_selected", event => {
      if (!drawing || !holder().lasso || !holder().place || !event) return;
      drawing = false;
      const path = corners(event);
      if (path.length > 2) ask({lasso: `${holder().lasso}:${path.map(point => point.join(",")).join(";")}`, rows: null});
    });
    node.on("plotly_deselect", () => holder().lasso && holder().place && ask({lasso: null, rows: null}));
  }

  async function draw(holder) {
    const {name, figure: source} = holder.dataset;
    let plot = plots.get(name);
    if (!plot) plots.set(name, plot = {node: document.createElement("div"), source: null});
    if (plot.node.parentNode !== holder) holder.replaceChildren(plot.node);
    if (plot.source === source) { holder.dataset.drawn = "moved"; return; }
    const isNew = plot.source === null;
    plot.source = source;
    const {data, layout} = JSON.parse(source), eye = layout.scene && layout.scene.camera.eye;
    if (eye && holder.clientWidth < 500) for (const axis of "xyz") eye[axis] *= 1.45;  // a narrow picture cuts the labels off
    await Plotly.react(plot.node, data, themed(layout), config);
    if (isNew) listen(plot.node);
    holder.dataset.drawn = String(Number(holder.dataset.drawn || 0) + 1);
    performance.mark(`drawn-${name}`);
  }
  // What is far below is drawn when it comes near, and one figure is painted before the next is begun.
  const waiting = new Set();
  const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)));  // and the page can answer
  async function drawWaiting() {
    while (waiting.size) {
      const [holder] = waiting;
      await draw(holder);
      await painted();
      waiting.delete(holder);
    }
  }
  const near = new IntersectionObserver(entries => {
    const idle = waiting.size === 0;
    for (const {isIntersecting, target} of entries) if (isIntersecting) { near.unobserve(target); waiting.add(target); }
    if (idle) drawWaiting();
  }, {rootMargin: "300px"});
  function drawAll() {
    const page = document.getElementById("page"), first = document.getElementById("first");
    const ready = page && page.childElementCount > 0;
    for (const holder of document.querySelectorAll(".figure[data-figure]"))
      if (!(ready && first && first.contains(holder))) (plots.has(holder.dataset.name) ? draw : each => near.observe(each))(holder);
    if (ready && first) first.remove();
  }

  document.addEventListener("click", event => {
    const save = event.target.closest("[data-save]"), change = event.target.closest("[data-ask]"), link = event.target.closest("a[href^='/']");
    if (save) {
      const node = save.closest("figure").querySelector(".js-plotly-plot"), box = node.getBoundingClientRect();
      Plotly.downloadImage(node, {format: save.dataset.save, filename: node.parentElement.dataset.name, width: box.width, height: box.height, scale: 2});
    } else if (change) {
      const [key, value] = change.dataset.ask.split("=");
      ask({[key]: value || null, ...(key === "lasso" ? {rows: null} : {})});
    } else if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault();
      navigate(link.getAttribute("href"));
    }
  });
  document.addEventListener("change", event => {
    if (event.target.matches("select[data-key]")) ask({[event.target.dataset.key]: event.target.value});
  });
  document.addEventListener("submit", event => event.preventDefault());
  window.addEventListener("beforeprint", () => document.querySelectorAll(".figure[data-figure]").forEach(draw));
  dark.addEventListener("change", () => { for (const plot of plots.values()) plot.source = ""; drawAll(); });
  new MutationObserver(drawAll).observe(document.documentElement, {subtree: true, childList: true, attributeFilter: ["data-figure"]});
  drawAll();
})();
