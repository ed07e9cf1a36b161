// SPDX-License-Identifier: GPL-3.0-or-later
// Opens a noVNC page, gives the password, and keeps what is to be seen: node novnc.js URL PICTURE. VNC_PASSWORD is set.
const { chromium } = require('/opt/openclaw/lib/node_modules/openclaw/node_modules/playwright-core');

const [url, picture] = process.argv.slice(2);

async function main() {
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  await page.goto(url);
  await page.waitForSelector('#noVNC_credentials_dlg.noVNC_open', { timeout: 60000 });
  await page.fill('#noVNC_password_input', process.env.VNC_PASSWORD);
  await page.click('#noVNC_credentials_button');
  const connected = () => document.documentElement.classList.contains('noVNC_connected');
  await page.waitForFunction(connected, null, { timeout: 60000 });
  await page.waitForTimeout(2000);
  await page.screenshot({ path: picture });
  const colours = await page.evaluate(() => {
    const canvas = document.querySelector('#noVNC_container canvas');
    const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    return new Set(pixels).size;
  });
  console.log(JSON.stringify({ connected: await page.evaluate(connected), colours }));
  await browser.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
