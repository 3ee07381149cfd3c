import { changed, colourBar, dressed, el, hideTip, idOf, ink, isDark, kept, number, ours, plainKey, ramp, shade, showTip, showTipAt, titled } from "./common.js";

const same = (a, b) => Boolean(a && b && a[0] === b[0] && a[1] === b[1]);
const NONE = "not defined here";

/** Layers x heads. `callbacks.set` gets `selected` and `compared`. */
export function draw(root, data, callbacks) {
  titled(root, data.title);
  const grid = kept(root, "div", "ahd-grid", { role: "grid", tabindex: 0, "aria-label": data.title || data.measure || "heads" });
  const legend = kept(root, "div", "ahd-legend");
  const look = looks(root, data);
  if (changed(grid, { ...data, selected: null, compared: null, width: root.clientWidth, dark: isDark(root) })) cells(root, grid, data, look);
  point(root, grid, data);
  legend.replaceChildren(...keys(data, look));
  listen(root, grid, data, callbacks);
}

function cells(root, grid, data, look) {
  const size = sizes(root, data), rows = data.values.map((_, layer) => row(root, data, layer, size, look));
  grid.replaceChildren(...(rows.length ? [headNames(data, size), ...rows] : []));
  grid.style.gridTemplateColumns = `auto auto repeat(${data.values[0]?.length ?? 0}, ${size.width}px)`;
}

/** Mark the selected and the compared head. */
function point(root, grid, data) {
  for (const cell of grid.querySelectorAll("[aria-selected=true], [data-compared]")) dressed(cell, { "aria-selected": "false", "data-compared": null });
  const at = (head) => head && document.getElementById(idOf(root, ...head));
  if (at(data.selected)) dressed(at(data.selected), { "aria-selected": "true" });
  if (at(data.compared)) dressed(at(data.compared), { "data-compared": "" });
  dressed(grid, { "aria-activedescendant": at(data.selected)?.id });
}

/** Width and height of a cell, and which labels there is room for. */
function sizes(root, data) {
  const layers = data.values.length || 1, heads = data.values[0]?.length || 1;
  const width = Math.floor(Math.min(58, Math.max(6, (root.clientWidth - 44) / heads - 1)));
  const height = Math.floor(Math.min(28, Math.max(6, (data.max_height - 34) / layers - 1)));
  return {
    width, height,
    rowStep: [1, 2, 5].find((step) => step * (height + 1) >= 12) ?? 10,
    headStep: [1, 2, 5].find((step) => step * (width + 1) >= (heads > 10 ? 19 : 12)) ?? 10,
    digits: height < 15 ? null : digitsIn(width - (data.marks.length ? 18 : 4), data),
  };
}

/** How many digits of every value there is room for; null for none, if even one is too much. */
function digitsIn(room, data) {
  const before = data.scale === "shift" ? 3 : 2; // sign, digit and point
  const fit = Math.min(data.digits, Math.floor(room / 6.4) - before);
  return fit >= Math.min(2, data.digits) ? fit : null;
}

function looks(root, data) {
  const colours = ramp(root, data.scale), signed = data.scale === "shift";
  const [low, high] = data.limits.length ? data.limits : ownLimits(data);
  const place = data.scale === "q"
    ? (v) => Math.log(Math.max(v, low) / low) / Math.log(high / low)
    : (v) => (v - low) / (high - low);
  return { colours, low, high, signed, colour: (v) => shade(colours, place(v)) };
}

function ownLimits(data) {
  const largest = Math.max(0, ...data.values.flat().filter((v) => v !== null).map(Math.abs)) || 1e-6;
  return { shift: [-largest, largest], size: [0, largest], q: [0.001, 1] }[data.scale];
}

// ---- cells

function headNames(data, { headStep }) {
  const heads = data.values[0].length;
  const names = [...Array(heads).keys()].map((head) => el("span", { class: "ahd-head", role: "columnheader", style: { gridRow: 2, gridColumn: head + 3 } }, head % headStep ? "" : String(head)));
  const axes = [ // rows 1 and 2 of the grid are labels, and so are columns 1 and 2
    el("span", { class: "ahd-layer-axis", "aria-hidden": "true", style: { gridRow: `3 / span ${data.values.length}` } }, "layer"),
    el("span", { class: "ahd-head-axis", "aria-hidden": "true", style: { gridColumn: `3 / span ${heads}` } }, "head"),
  ];
  return el("div", { role: "row", class: "ahd-row-of-cells" }, ...axes, ...names);
}

function row(root, data, layer, size, look) {
  const name = el("span", { class: "ahd-layer", role: "rowheader", style: { gridRow: layer + 3, gridColumn: 2, height: `${size.height}px` } }, layer % size.rowStep ? "" : String(layer));
  return el("div", { role: "row", class: "ahd-row-of-cells" }, name, ...data.values[layer].map((_, head) => cell(root, data, layer, head, size, look)));
}

function cell(root, data, layer, head, size, look) {
  const value = data.values[layer][head], colour = value === null ? null : look.colour(value);
  const here = [layer, head];
  const text = size.digits === null || value === null ? "" : number(value, size.digits, look.signed);
  return el("div", {
    id: idOf(root, layer, head), role: "gridcell", class: "ahd-cell", "data-at": `${layer},${head}`,
    "aria-label": tipLines(data, layer, head).join(", "), "aria-selected": "false", "data-none": value === null,
    style: { gridRow: layer + 3, gridColumn: head + 3, height: `${size.height}px`, ...(colour && { background: colour, color: ink(colour) }) },
  }, text, ...signs(data, here));
}

function signs(data, here) {
  const has = (heads) => heads.some((head) => same(head, here));
  const marks = data.marks.filter((mark) => has(mark.heads)).map(sign);
  const both = marks.length ? [el("span", { class: "ahd-marks" }, ...marks)] : [];
  return has(data.significant) ? [...both, el("i", { class: "ahd-corner" })] : both;
}

/** A ring or dot; what is black on white paper is white on dark paper. */
function sign({ shape, colour }) {
  return el("i", { class: `ahd-${shape}`, style: { color: colour === "#000000" ? "var(--ahd-ink)" : colour } });
}

function tipLines(data, layer, head) {
  const value = data.values[layer][head];
  const said = data.tips[layer]?.[head] ?? "";
  const first = `head ${layer}.${head}`;
  if (said) return [first, ...said.split("\n")];
  const kinds = data.marks.filter((mark) => mark.heads.some((one) => same(one, [layer, head]))).map((mark) => mark.label);
  const number_ = value === null ? NONE : number(value, data.digits, data.scale === "shift");
  return [first, `${data.measure || "value"}: ${number_}`, ...kinds];
}

// ---- legend

function keys(data, look) {
  if (!data.values.length) return [el("span", {}, "No result yet.")];
  const ends = [look.low, look.high].map((v) => number(v, data.scale === "q" ? 3 : data.digits, look.signed));
  const found = [colourBar(look.colours, ...ends, data.measure)];
  for (const mark of data.marks) found.push(key(sign(mark), mark.label));
  if (data.significant.length) found.push(key(el("i", { class: "ahd-corner" }), data.significant_label));
  if (data.values.flat().includes(null)) found.push(key(null, NONE, true));
  if (data.compared) found.push(key(null, `compared: ${data.compared.join(".")}`, false, true));
  return found;
}

function key(mark, label, none = false, compared = false) {
  const box = el("span", { class: "ahd-cell ahd-sample", "data-none": none, "data-compared": compared }, ...(mark ? [el("span", { class: "ahd-marks" }, mark)] : []));
  return el("span", { class: "ahd-key" }, box, label);
}

// ---- pointer and keys

function listen(root, grid, data, callbacks) {
  const at = (event) => event.target.closest?.("[data-at]")?.dataset.at.split(",").map(Number);
  const compare = (head) => callbacks.set({ compared: same(head, data.compared) ? null : head });
  grid.onpointermove = (event) => {
    const head = at(event);
    if (head) showTip(event.clientX, event.clientY, tipLines(data, ...head));
    else hideTip();
  };
  grid.onpointerleave = grid.onblur = hideTip;
  grid.onclick = (event) => {
    const head = at(event);
    if (head && event.shiftKey) compare(head);
    else if (head) callbacks.set({ selected: head });
  };
  grid.onkeydown = (event) => {
    const key = plainKey(event), here = data.selected ?? [0, 0];
    if (key === "Escape") hideTip();
    const to = data.values.length ? moved(key, data, here) : null;
    if (!to && key !== "c") return;
    ours(event);
    if (key === "c" && data.selected) return compare(data.selected);
    if (to) go(root, data, callbacks, data.selected ? to : here);
  };
}

function go(root, data, callbacks, head) {
  data.selected = head;
  callbacks.set({ selected: head });
  showTipAt(document.getElementById(idOf(root, ...head)), tipLines(data, ...head));
}

/** Where a key leads, at an edge no further; null for a key that is not ours. */
function moved(key, data, [layer, head]) {
  const last = [data.values.length - 1, data.values[0].length - 1];
  const to = {
    ArrowUp: [layer - 1, head], ArrowDown: [layer + 1, head], ArrowLeft: [layer, head - 1], ArrowRight: [layer, head + 1],
    Home: [layer, 0], End: [layer, last[1]], PageUp: [0, head], PageDown: [last[0], head],
    "Control+Home": [0, 0], "Control+End": last,
  }[key];
  return to ? to.map((place, i) => Math.min(last[i], Math.max(0, place))) : null;
}
