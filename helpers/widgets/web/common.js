export function connect(draw) {
  return ({ model, el }) => draw(el, {}, {});
}
