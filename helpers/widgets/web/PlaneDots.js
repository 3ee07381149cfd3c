import { el, hideTip, kept, number, ours, plainKey, showTip, svg, titled } from "./common.js";

const MARGIN = { left: 58, right: 12, top: 10, bottom: 42 };
const NEAR = 14; // pixels from which a dot is taken to be under the pointer
const LONGEST = 400; // characters of a prompt in the tooltip

/** A dot a prompt. `callbacks.set` gets `selected`. */
export function draw(root, data, callbacks) {
  titled(root, data.title);
  const box = kept(root, "div", "ahd-plane", {
    tabindex: 0, role: "application", "aria-roledescription": "plane",
    "aria-label": `${data.title || "plane"}: ${data.x_name} against ${data.y_name}, ${data.points.length} prompts; arrow keys go from dot to dot`,
  });
  const said = kept(root, "div", "ahd-said", { "aria-live": "polite" });
  const legend = kept(root, "div", "ahd-legend");
  const scale = scales(root, data);
  const picture = svg("svg", { width: scale.width, height: scale.height, "aria-hidden": "true" }, ...axes(data, scale));
  picture.append(svg("svg", scale.inner, ...contents(data, scale)));
  box.replaceChildren(picture);
  legend.replaceChildren(...keys(data), zoomButton(root, data, () => draw(root, data, callbacks)));
  listen(box, said, data, scale, callbacks);
}

// ---- scales

function scales(root, data) {
  const width = Math.max(240, Math.min(root.clientWidth, Math.round(1.7 * data.max_height)));
  const height = Math.min(data.max_height, Math.round(0.8 * width));
  const inner = {
    x: MARGIN.left, y: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom,
  };
  const places = [...data.points.map(({ x, y }) => [x, y]), ...data.trajectory];
  const shown = root.dataset.zoom && places.length ? places : [...places, ...data.region];
  const [xs, ys] = [0, 1].map((axis) => range(shown.map((place) => place[axis])));
  return {
    width, height, inner, xs, ys,
    x: (v) => ((v - xs[0]) / (xs[1] - xs[0])) * inner.width,
    y: (v) => inner.height - ((v - ys[0]) / (ys[1] - ys[0])) * inner.height,
  };
}

function range(values) {
  const low = Math.min(...values), high = Math.max(...values);
  if (!values.length) return [0, 1];
  const room = 0.05 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  return [low - room, high + room];
}

/** Round numbers inside a range. */
function ticks([low, high], most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const first = Math.ceil(low / step - 1e-9), n = Math.floor(high / step + 1e-9) - first + 1;
  return [...Array(Math.max(0, n)).keys()].map((i) => ({ value: (first + i) * step, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) }));
}

// ---- the picture

function axes(data, scale) {
  const { inner, width, height } = scale, base = inner.y + inner.height;
  const across = ticks(scale.xs, inner.width / 70).map(({ value, digits }) => {
    const x = inner.x + scale.x(value);
    return svg("g", {}, svg("line", { x1: x, x2: x, y1: inner.y, y2: base + 4, class: "ahd-tick" }), svg("text", { x, y: base + 16, "text-anchor": "middle" }, number(value, digits)));
  });
  const up = ticks(scale.ys, inner.height / 45).map(({ value, digits }) => {
    const y = inner.y + scale.y(value);
    return svg("g", {}, svg("line", { x1: inner.x - 4, x2: inner.x + inner.width, y1: y, y2: y, class: "ahd-tick" }), svg("text", { x: inner.x - 7, y: y + 4, "text-anchor": "end" }, number(value, digits)));
  });
  const middle = inner.y + inner.height / 2;
  return [
    ...across, ...up, svg("text", { x: inner.x + inner.width / 2, y: height - 6, "text-anchor": "middle" }, data.x_label),
    svg("text", { x: 12, y: middle, transform: `rotate(-90 12 ${middle})`, "text-anchor": "middle" }, data.y_label),
  ];
}

const path = (scale, places) => places.map(([x, y]) => `${scale.x(x).toFixed(1)},${scale.y(y).toFixed(1)}`).join(" ");

function contents(data, scale) {
  const region = data.region.length ? [svg("polygon", { points: path(scale, data.region), class: "ahd-region" })] : [];
  const ends = ([a, b]) => [a, b].map((i) => [data.points[i].x, data.points[i].y]);
  const lines = data.lines.map((line) => svg("polyline", { points: path(scale, ends(line)), class: "ahd-line" }));
  const order = [...data.points.keys()].filter((i) => i !== data.selected);
  const dots = [...order, ...(data.selected === null ? [] : [data.selected])].map((i) => dot(data, scale, i));
  return [...region, ...lines, ...dots, ...way(data, scale)];
}

function dot(data, scale, i) {
  const { x, y, side } = data.points[i], chosen = i === data.selected;
  const at = [scale.x(x), scale.y(y)];
  return svg("g", { transform: `translate(${at.map((v) => v.toFixed(1)).join(" ")})`, "data-point": i }, symbol(side, 4.5),
    ...(chosen ? [svg("circle", { r: 9, class: "ahd-chosen" })] : []));
}

/** Sides differ in colour and in shape. */
function symbol(side, r) {
  const look = { class: "ahd-dot-of-plane", fill: COLOURS[side] };
  return side === "active" ? svg("circle", { r, ...look }) : svg("path", { d: `M0,${-r - 1.5}L${r + 1.5},0L0,${r + 1.5}L${-r - 1.5},0Z`, ...look });
}

function way(data, scale) {
  if (!data.trajectory.length) return [];
  const now = data.current === null ? [] : [svg("circle", { cx: scale.x(data.trajectory[data.current][0]), cy: scale.y(data.trajectory[data.current][1]), r: 6, class: "ahd-now" })];
  return [svg("polyline", { points: path(scale, data.trajectory), class: "ahd-way" }), ...now];
}

// ---- legend

function keys(data) {
  const sample = (...nodes) => svg("svg", { width: 16, height: 14, viewBox: "-8 -7 16 14", "aria-hidden": "true" }, ...nodes);
  const key = (node, label) => el("span", { class: "ahd-key" }, sample(node), label);
  const used = ["active", "control"].filter((side) => data.points.some((point) => point.side === side));
  const found = used.map((side) => key(symbol(side, 4.5), data.side_labels[side === "active" ? 0 : 1] ?? side));
  if (data.region.length) found.push(key(svg("rect", { x: -7, y: -5, width: 14, height: 10, class: "ahd-region" }), "can be reached"));
  if (data.lines.length) found.push(key(svg("line", { x1: -7, x2: 7, y1: 0, y2: 0, class: "ahd-line" }), "a pair"));
  if (data.trajectory.length) found.push(key(svg("line", { x1: -7, x2: 7, y1: 0, y2: 0, class: "ahd-way" }), "as β changes"));
  return data.points.length || found.length ? found : [el("span", {}, "No prompts yet.")];
}

/** The whole plane, or only where the dots are. */
function zoomButton(root, data, again) {
  if (!data.region.length || !data.points.length) return "";
  const button = el("button", { class: "ahd-button ahd-small", type: "button" }, root.dataset.zoom ? "Whole plane" : "Zoom to the dots");
  button.onclick = () => {
    if (root.dataset.zoom) delete root.dataset.zoom;
    else root.dataset.zoom = "1";
    again();
    root.querySelector(".ahd-small").focus();
  };
  return button;
}

// ---- pointer and keys

function listen(box, said, data, scale, callbacks) {
  const at = (event) => {
    const { left, top } = box.getBoundingClientRect();
    return nearest(data, scale, event.clientX - left - scale.inner.x, event.clientY - top - scale.inner.y);
  };
  box.onpointermove = (event) => {
    const i = at(event);
    if (i === null) hideTip();
    else showTip(event.clientX, event.clientY, lines(data, i));
  };
  box.onpointerleave = box.onblur = hideTip;
  box.onclick = (event) => {
    const i = at(event);
    if (i !== null) callbacks.set({ selected: i });
  };
  box.onkeydown = (event) => {
    const key = plainKey(event), i = moved(key, data);
    if (key === "Escape") hideTip();
    if (i === null) return;
    ours(event);
    data.selected = i;
    callbacks.set({ selected: i });
    said.textContent = lines(data, i).join(", ");
    const { left, top } = box.getBoundingClientRect(), { x, y } = data.points[i];
    showTip(left + scale.inner.x + scale.x(x), top + scale.inner.y + scale.y(y), lines(data, i));
  };
}

function nearest(data, scale, x, y) {
  let best = null, least = NEAR;
  data.points.forEach((point, i) => {
    const away = Math.hypot(scale.x(point.x) - x, scale.y(point.y) - y);
    if (away < least || (away === least && i === data.selected)) [best, least] = [i, away];
  });
  return best;
}

function moved(key, data) {
  const last = data.points.length - 1, here = data.selected;
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[key];
  if (step === undefined || last < 0) return null;
  return here === null ? 0 : Math.min(last, Math.max(0, here + step));
}

function lines(data, i) {
  const { x, y, side, text } = data.points[i];
  const letters = [...text], short = letters.length > LONGEST ? `${letters.slice(0, LONGEST).join("")} …` : text;
  const label = data.side_labels[side === "active" ? 0 : 1] ?? side;
  return [`${label}: ${data.x_name} ${number(x)}, ${data.y_name} ${number(y)}`, short];
}
