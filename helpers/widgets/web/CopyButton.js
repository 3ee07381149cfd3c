export function draw(element) { element.textContent = "CopyButton"; }
