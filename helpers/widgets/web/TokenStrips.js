export function draw(element) { element.textContent = "TokenStrips"; }
