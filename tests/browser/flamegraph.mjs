// Does with a flame graph what a person would, and prints what it saw as JSON: node flamegraph.mjs FILE.svg
import { open } from "./page.mjs";

const { page, seen, settle, close } = await open(process.argv[2]);
const frames = page.locator("#frames > g");
const state = async () => ({
  hidden: await page.locator("#frames > g.hide").count(),
  address: await page.evaluate(() => location.search),
  details: await page.locator("#details").textContent(),
});
const labels = () => page.locator("#frames text").allTextContents();
const width = () => page.evaluate(() => document.getElementById("frames").getBoundingClientRect().width);

const titles = await page.locator("#frames title").allTextContents();
const head = await page.locator(".head text").evaluateAll((all) => all.map((text) => [text.textContent, text.getBoundingClientRect().right]));
const wide = { labels: await labels(), width: await width(), window: await page.evaluate(() => innerWidth) };

// The mouse: over the widest frame of the innermost row, into it, and out again.
const innermost = page.locator("#frames > g:has(title:text-matches('spin_'))").first();
await innermost.locator("rect").hover();
const hover = await state();
await innermost.locator("rect").click();
const zoomed = await state();
await page.locator("#unzoom").click();
const back = await state();

// The keyboard: from the whole to a thread, to its neighbour, into that, and out again.
await page.locator('#frames > g[tabindex="0"]').focus();
const walked = [];
for (const key of ["ArrowUp", "ArrowRight", "ArrowUp", "ArrowDown"]) {
  await page.keyboard.press(key);
  walked.push((await state()).details);
}
await page.keyboard.press("Enter");
const entered = await state();
await page.keyboard.press("Escape");
const left = await state();

await page.evaluate(() => search("spin_one"));
const found = { matched: await page.locator("#matched").textContent(), marked: await page.locator('#frames rect[fill="rgb(230,0,230)"]').count() };

const ground = () => page.locator("rect.page").evaluate((rect) => getComputedStyle(rect).fill);
const light = await ground();
await page.emulateMedia({ colorScheme: "dark" });
const dark = await ground();
await page.setViewportSize({ width: 500, height: 500 });
await settle();
const narrow = { labels: await labels(), width: await width(), window: await page.evaluate(() => innerWidth) };

console.log(JSON.stringify({ titles, head, wide, hover, zoomed, back, walked, entered, left, found, light, dark, narrow, frames: await frames.count(), ...seen }));
await close();
