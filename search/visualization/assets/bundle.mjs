// Makes plotly.js here: the traces that voxnas draws, in forms that need no eval. In an empty folder:
//   npm install plotly.js@4.1.1 esbuild esbuild-plugin-glsl esbuild-plugin-inline-css esbuild-plugin-environment \
//     stream-browserify buffer assert util --ignore-scripts --legacy-peer-deps
//   node FOLDER_OF_VOXNAS/search/figures/bundle.mjs
import {createRequire} from "node:module";
import {writeFileSync} from "node:fs";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

const require = createRequire(join(process.cwd(), "package.json"));
const {version} = require("plotly.js/package.json");
const css = require("esbuild-plugin-inline-css"), {glsl} = require("esbuild-plugin-glsl");
const traces = ["lib/bar", "lib/heatmap", "lib/scatter3d", "src/traces/scattergl/strict", "src/traces/parcoords/strict"];
writeFileSync("entry.js", `const Plotly = require("plotly.js/lib/core");
Plotly.register([${traces.map(name => `require("plotly.js/${name}")`).join(", ")}]);
module.exports = Plotly;\n`);
await require("esbuild").build({
  entryPoints: ["entry.js"], outfile: join(dirname(fileURLToPath(import.meta.url)), "plotly.js"),
  bundle: true, minify: true, format: "iife", globalName: "Plotly", target: "es2016",
  plugins: [(css.default || css)(), glsl({minify: true}), require("esbuild-plugin-environment").environmentPlugin({NODE_DEBUG: false})],
  alias: {regl: "@plotly/regl", stream: "stream-browserify"}, define: {global: "window", "define.amd": "false"},
  banner: {js: `/*! plotly.js v${version}, Copyright 2012-2026 Plotly, Inc., MIT licence. A part of it, made by bundle.mjs. */`},
});
