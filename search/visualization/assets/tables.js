// Fills every <div class="table" data-table="JSON">: sorts by a heading, filters by a text, pages, saves CSV.
(() => {
  "use strict";
  const PAGE = 50, LONG = 18;  // rows of a page; characters that need a phone's whole width
  const states = new Map();  // name → what its user chose: that outlives the element that holds the table
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const text = cell => Array.isArray(cell) ? cell[1] : cell;
  const key = cell => Array.isArray(cell) ? cell[0] : cell;
  function compare(a, b) {
    if (a === b) return 0;
    if (a === null || a === "") return 1;
    if (b === null || b === "") return -1;
    return a < b ? -1 : 1;
  }
  function chosen(state) {
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = state.rows.filter(row => { const all = row.map(text).join(" ").toLowerCase(); return words.every(word => all.includes(word)); });
    if (state.sort === null) return rows;
    const empty = cell => key(cell) === null || key(cell) === "";
    return rows.sort((a, b) => {
      const order = compare(key(a[state.sort]), key(b[state.sort]));
      return empty(a[state.sort]) || empty(b[state.sort]) ? order : order * (state.up ? 1 : -1);
    });
  }
  function save(state, name) {
    const quote = value => { const cell = String(value ?? ""); const safe = /^[=+@\t\r]|^-(?![\d.])/.test(cell) ? `'${cell}` : cell;
      return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe; };
    const lines = [state.headings, ...chosen(state).map(row => row.map(cell => key(cell)))].map(row => row.map(quote).join(","));
    const link = make("a", {href: URL.createObjectURL(new Blob([lines.join("\r\n")], {type: "text/csv"})), download: `${name}.csv`});
    link.click();
    URL.revokeObjectURL(link.href);
  }
  function link(state, cell) {
    if (!state.opens || !state.place) return text(cell);
    const href = state.opens === "trial" ? `${state.place}/trial?trial=${key(cell)}` : `${state.place.replace(/\/study\/.*|\/$/, "")}/study/${encodeURIComponent(text(cell))}/front`;
    return make("a", {href}, text(cell));
  }
  function body(state, holder) {
    const rows = chosen(state), pages = Math.max(1, Math.ceil(rows.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const number = "[<+−-]?[\\d.,]+(e-?\\d+)?( ?[^\\s\\d()]{1,3})?", amount = new RegExp(`^(none|no shared case|= .*|${number}( (to|of|±) ${number})?( \\(${number}\\))?)?$`);
    const numeric = state.headings.map((_, at) => state.rows.length > 0 && state.rows.every(row => Array.isArray(row[at]) && amount.test(text(row[at]))));
    holder.querySelector("tbody").replaceChildren(...rows.slice(state.page * PAGE, (state.page + 1) * PAGE).map(row => {
      const line = make("tr", row[1] === "on the front" ? {class: "front"} : {}, ...row.map((cell, at) =>
        make("td", {class: `${numeric[at] ? "number" : "text"}${text(cell).length > LONG ? " long" : ""}`, "data-heading": state.headings[at]},
          at === 0 ? link(state, cell) : text(cell))));
      if (state.opens === "trial") line.id = `trial-${key(row[0])}`;
      return line;
    }));
    holder.querySelector(".count").textContent = `${rows.length} of ${state.rows.length}` + (pages > 1 ? `, page ${state.page + 1} of ${pages}` : "");
    for (const [at, heading] of [...holder.querySelectorAll("th")].entries()) {
      heading.className = numeric[at] ? "number" : "text";
      heading.setAttribute("aria-sort", at !== state.sort ? "none" : state.up ? "ascending" : "descending");
    }
    for (const button of holder.querySelectorAll("[data-step]")) button.hidden = pages < 2;
  }
  function fill(holder) {
    const state = {sort: null, up: false, filter: "", page: 0, ...states.get(holder.dataset.name), ...JSON.parse(holder.dataset.table), source: holder.dataset.table, holder};
    states.set(holder.dataset.name, state);
    const again = () => body(state, holder);
    const filter = make("input", {type: "search", placeholder: "filter", "aria-label": `filter ${holder.dataset.name}`});
    filter.value = state.filter;
    filter.addEventListener("input", () => { state.filter = filter.value; state.page = 0; again(); });
    const csv = make("button", {type: "button"}, "CSV");
    csv.addEventListener("click", () => save(state, holder.dataset.name));
    const step = (by, name) => { const button = make("button", {type: "button", "data-step": by, "aria-label": name}, by < 0 ? "‹" : "›");
      button.addEventListener("click", () => { state.page = Math.max(0, state.page + by); again(); }); return button; };
    const headings = state.headings.map((heading, at) => {
      const button = make("button", {type: "button"}, heading);
      button.addEventListener("click", () => { state.up = state.sort === at ? !state.up : true; state.sort = at; again(); });
      return make("th", {scope: "col"}, button);
    });
    const bar = make("div", {class: "bar"}, make("strong", {}, holder.dataset.title), filter, make("span", {class: "count", role: "status"}),
      step(-1, "previous page"), step(1, "next page"), csv);
    holder.replaceChildren(bar, make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": holder.dataset.title},
      make("table", {}, make("thead", {}, make("tr", {}, ...headings)), make("tbody"))));
    again();
  }
  function fillAll() {
    for (const holder of document.querySelectorAll(".table[data-table]")) {
      const state = states.get(holder.dataset.name);
      if (!state || state.holder !== holder || state.source !== holder.dataset.table) fill(holder);
    }
  }
  window.addEventListener("trial", event => { const row = document.getElementById(`trial-${event.detail}`); if (row) row.scrollIntoView({block: "center"}); });
  new MutationObserver(fillAll).observe(document.documentElement, {subtree: true, childList: true, attributeFilter: ["data-table"]});
  fillAll();
})();
