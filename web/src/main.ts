/** The page on which a world is played. Start reading at page.ts. */

import { Page } from "./page";

const page = new Page();

declare global {
  interface Window {
    reverie: { stats: Page["stats"]; samples: Page["samples"] };
  }
}

window.reverie = { stats: () => page.stats(), samples: (sinceMs) => page.samples(sinceMs) };
