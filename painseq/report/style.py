"""The page's style sheet: one column of text, wide tables scroll by themselves, nothing is fetched."""

from __future__ import annotations

CSS = """
:root { --ink: #23272b; --soft: #667079; --rule: #dfe2e4; --paper: #ffffff; --wash: #f6f7f8; --blue: #1f5a8c; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 63rem; margin: 0 auto; padding: 3rem 1.25rem 2rem; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0 .9rem; max-width: 48rem; }
ul { max-width: 44rem; padding-left: 1.2rem; margin: .5rem 0 .9rem; }
li { margin: .25rem 0; }
p.subtitle { max-width: none; color: var(--soft); font-size: 1.05rem; margin: 0 0 1.2rem; }
.notes { margin: 1.4rem 0; padding: .6rem 1.1rem; background: var(--wash); border-left: 4px solid var(--blue); }
.warnings { margin: 1.4rem 0; padding: .6rem 1.1rem; background: #fdf6e7; border-left: 4px solid #b7791f; }
.notes > strong, .warnings > strong { display: block; margin-bottom: .2rem; }
.notes ul, .warnings ul { max-width: none; }
.scroll { overflow-x: auto; margin: .8rem 0 1rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .7rem; text-align: right; vertical-align: middle; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 500; font-size: .85rem; vertical-align: bottom; }
th:first-child, td.text { text-align: left; }
table.wide { width: 100%; }
table.rows tbody th { min-width: 8.5rem; }
tr.baseline th, tr.baseline td { color: var(--soft); font-weight: 400; background: var(--wash); }
.small { display: block; font-size: .8rem; color: var(--soft); font-weight: 400; }
table.published { font-size: .86rem; }
table.published th, table.published td { padding: .35rem .6rem; }
table.published tbody th { font-weight: 500; min-width: 12rem; }
table.published thead th { text-align: left; }
table.published thead th:nth-child(5) { text-align: right; }
.of { color: var(--soft); font-size: .8rem; }
.keep { white-space: nowrap; }
.aside { font-size: .88rem; color: var(--soft); }
th.text { text-align: left; }
.leaky { border: 2px solid currentColor; padding: 0 .25em; font-size: .85em; letter-spacing: .06em; }
.charts { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 1.2rem; }
.charts .scroll { margin: .4rem 0; max-width: 100%; }
.charts img { display: block; }
.curves { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
.bar { display: block; height: .45rem; margin-top: .25rem; background: #e7eaed; min-width: 7rem; }
.bar span { display: block; height: 100%; background: var(--blue); }
.zero { font-weight: 700; }
.matrices { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; }
.matrices .scroll { margin-top: .2rem; }
table.matrix td { width: 5.2rem; height: 3.4rem; text-align: center; border: 1px solid #fff; line-height: 1.2; }
table.matrix td.hit { outline: 2px solid var(--ink); outline-offset: -3px; }
table.matrix th { border: 0; font-weight: 500; }
table.matrix tbody th { text-align: right; }
table.matrix thead th { text-align: center; }
table.matrix td .small { color: inherit; }
svg { display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
figure { margin: 1rem 0 1.6rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: .88rem; color: var(--soft); max-width: 44rem; margin-top: .4rem; }
dl { display: grid; grid-template-columns: minmax(9rem, 14rem) 1fr; gap: .3rem 1.2rem;
  font-size: .92rem; margin: .8rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
dl.terms dt { color: var(--ink); font-weight: 600; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--rule); color: var(--soft);
  font-size: .88rem; }
@media (max-width: 40rem) {
  main { padding-top: 1.6rem; }
  h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; }
  th, td { padding: .45rem .45rem; }
  table.matrix td { width: 4.3rem; }
}
@media print { .bar, .bar span, table.matrix td { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
