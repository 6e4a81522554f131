# SPDX-License-Identifier: Apache-2.0
"""The look of the report: one style sheet, light and dark. Series colours follow Okabe and Ito (colour-blind safe)."""

CSS = """
:root {
  --paper: #fbfbfa; --card: #fff; --ink: #1c2024; --ink-2: #5b636d; --line: #e2e5e9;
  --good: #00734f; --good-paper: #e5f4ee; --poor: #a04000; --poor-paper: #fcefe6; --open: #0a5f97;
  --open-paper: #e7f1f9;
  --series-0: #0072b2; --series-1: #d98200; --series-2: #009e73; --series-3: #c4458a; --series-4: #d55e00;
  --series-5: #8a929b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1c2024; --ink: #e8eaed; --ink-2: #a3abb5; --line: #343b43;
    --good: #5fd3a8; --good-paper: #14302a; --poor: #f5a66a; --poor-paper: #38261a; --open: #7cc0f0;
    --open-paper: #172b3a;
    --series-0: #56b4e9; --series-1: #f0b030; --series-2: #35c79b; --series-3: #e58fc0; --series-4: #ff8a4c;
    --series-5: #7d8690;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
.eyebrow { margin: 0; color: var(--ink-2); font-size: 13px; }
h1 { margin: 0 0 16px; font-size: 28px; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 44px 0 12px; font-size: 19px; }
h3 { margin: 0; font-size: 15px; }
.outcome { margin: 0 0 20px; padding: 12px 16px; border-radius: 8px; border-left: 4px solid; font-size: 16px; }
.good { color: var(--good); background: var(--good-paper); }
.poor { color: var(--poor); background: var(--poor-paper); }
.open { color: var(--open); background: var(--open-paper); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 0; }
.tile, figure, .scroll, details { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 12px 16px; }
.tile dt { color: var(--ink-2); font-size: 13px; }
.tile dd { margin: 0; font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile dd.sub { color: var(--ink-2); font-size: 12.5px; font-weight: 400; min-height: 1.5em; }
.findings ul { margin: 0; padding: 14px 16px 14px 34px; border-radius: 8px; color: var(--poor);
  background: var(--poor-paper); }
.findings li + li { margin-top: 6px; }
.panels { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
figure { margin: 0; padding: 16px 16px 10px; display: flex; flex-direction: column; }
figure.wide { grid-column: 1 / -1; }
figcaption { margin-bottom: 10px; }
figcaption p { margin: 2px 0 0; color: var(--ink-2); font-size: 13px; line-height: 1.4; }
figure svg { display: block; width: 100%; height: auto; margin-top: auto; }
svg * { stroke-linejoin: round; }
svg text { font-variant-numeric: tabular-nums; }
.missing { color: var(--ink-2); font-style: italic; }
figure .missing { margin: auto; padding: 32px 0; text-align: center; }
.scroll { overflow: auto; max-height: 460px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: var(--card); color: var(--ink-2); font-weight: 500; }
th, td { padding: 7px 14px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
details summary { padding: 12px 16px; cursor: pointer; }
pre { margin: 0; padding: 0 16px 16px; overflow: auto; font-size: 12.5px; line-height: 1.45; }
footer { margin-top: 44px; color: var(--ink-2); font-size: 12.5px; overflow-wrap: anywhere; }
@media (max-width: 760px) { .panels { grid-template-columns: minmax(0, 1fr); } main { padding: 24px 14px 40px; }
  figure.wide { overflow-x: auto; } figure.wide svg { width: 760px; } }
@media print { body { background: #fff; } figure, .tile { break-inside: avoid; } .scroll { max-height: none; } }
"""
