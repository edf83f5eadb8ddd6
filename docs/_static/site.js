// Pages opened from disk may not read one another: without the extracts, search works there too.
if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// What scrolls must be reachable with the keyboard.
const reach = () => document.querySelectorAll('.equation .scroll, .cell_output .output, .table-wrapper, pre, .pst-scrollable-table-container').forEach(e => {
  if (e.scrollWidth > e.clientWidth || !e.checkVisibility()) e.tabIndex = 0;  // what is folded cannot be measured yet
});
addEventListener('load', reach);
addEventListener('resize', reach);

// Names for those who hear the page: buttons are called what they show, an arrow in the contents folds what is below it.
addEventListener('DOMContentLoaded', () => {
  document.querySelectorAll('.search-button-field, details.hide > summary').forEach(b => b.removeAttribute('aria-label'));
  document.querySelectorAll('nav summary').forEach(s => { if (!s.innerText.trim()) s.setAttribute('aria-label', `Pages under ${s.closest('li').querySelector('a').innerText}`); });
});

// Outputs that are longer than a screen fold; the button below them unfolds them.
const TALLEST = 900;  // pixels
addEventListener('load', () => {
  document.querySelectorAll('.cell_output').forEach(output => {
    if (output.offsetHeight <= TALLEST) return;
    const button = document.createElement('button');
    button.className = 'unfold';
    const fold = folded => {
      output.classList.toggle('tall', folded);
      button.textContent = folded ? 'Show all of it' : 'Show less';
      button.setAttribute('aria-expanded', !folded);
    };
    fold(true);
    button.addEventListener('click', () => fold(!output.classList.contains('tall')));
    output.after(button);
  });
});
