// Does with a timeline what a person would, and prints what it saw as JSON: node timeline.mjs FILE.svg
import { open } from "./page.mjs";

const { page, seen, settle, close } = await open(process.argv[2]);
const lanes = page.locator("g.lane");
const names = () =>
  lanes.evaluateAll((all) =>
    all.filter((lane) => lane.style.display !== "none").map((lane) => lane.querySelector("text").textContent));
const view = () => page.evaluate(() => ["from", "to"].map((end) => Number(document.documentElement.dataset[end])));
// What is drawn in a block, box for box.
const drawn = (block) => block.locator("g.draw").evaluate((group) => group.innerHTML);
const middle = async (block) => {
  const box = await block.boundingBox();
  return box.y + 12;
};
const drag = async (from, to, y) => {
  await page.mouse.move(from, y);
  await page.mouse.down();
  await page.mouse.move(to, y, { steps: 4 });
  await page.mouse.up();
  await settle();
};

const scale = await page.evaluate(() => document.documentElement.getScreenCTM().a);
const at = (column) => (206 + column) * scale;
const first = lanes.first();
const whole = { view: await view(), drawn: await drawn(first), names: await names() };

await page.mouse.move(at(360), await middle(first));
const hover = await page.locator(".hover").innerText();
await page.mouse.move(at(360), await middle(page.locator("g.strip, g.parallel").first()));
const strip = await page.locator(".hover").innerText();

await drag(at(180), at(540), await middle(first));
const zoomed = { view: await view(), drawn: await drawn(first) };
await page.keyboard.press("ArrowLeft");
await settle();
const panned = { view: await view() };

await page.mouse.click(at(300), await middle(first));
const pinned = await page.locator(".pinned").innerText();
const hash = await page.evaluate(() => location.hash);
await page.reload();
await settle();
const again = { view: await view(), pinned: await page.locator(".pinned").innerText() };
await page.keyboard.press("Tab");
await page.keyboard.press("Escape");
const unpinned = await page.locator(".pinned-place").isHidden();

await page.getByRole("button", { name: "whole" }).click();
await settle();
const back = { view: await view(), drawn: await drawn(first) };
const height = () => page.evaluate(() => Number(document.documentElement.getAttribute("height")));
const before = await height();
const wanted = (await lanes.last().locator("text").nth(1).textContent()).trim();
await page.getByRole("searchbox").fill(wanted);
const filtered = { names: await names(), shorter: (await height()) < before };
await page.getByRole("searchbox").press("Escape");
const unfiltered = await names();

const text = await page.locator("svg > g text").allTextContents();
console.log(JSON.stringify({
  whole, hover, strip, zoomed, panned, pinned, hash, again, unpinned, back, filtered, unfiltered, text, ...seen,
}));
await close();
