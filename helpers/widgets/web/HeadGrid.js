export function draw(element) { element.textContent = "HeadGrid"; }
