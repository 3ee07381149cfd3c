export function draw(element) { element.textContent = "PlaneDots"; }
