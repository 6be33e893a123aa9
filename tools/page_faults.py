"""What is wrong with one page of a book, as a browser finds it."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Error, Page

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTRAST, OF_LINKS = "color-contrast", "link-in-text-block"
NARROWEST = 320
SHOWN = 3  # places named of one fault

# What a browser alone knows of a page: after all pictures came, its width, pictures and headings.
LOOK = """async () => {
  const images = [...document.images];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  const named = svg => svg.getAttribute("aria-label") || svg.getAttribute("aria-labelledby")
    || svg.querySelector("title")?.textContent || "";
  return {
    images: images.map(image => ({name: image.getAttribute("src") || "", alt: image.alt,
                                  came: image.naturalWidth > 0})),
    drawings: [...document.querySelectorAll("svg[role=img]:not([aria-hidden=true])")].map(svg =>
      ({name: "a drawing", alt: named(svg), came: true})),
    headings: [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
      .filter(heading => heading.checkVisibility())
      .map(heading => [Number(heading.tagName[1]), heading.textContent.trim()]),
  };
}"""

# Texts of one colour, size and weight on the same grounds have one contrast, which axe takes long
# to find for every word of a page: three of each kind stand for all.
CONTRAST_OF_KINDS = """options => {
  const grounds = new Map([[null, ""]]), kinds = new Map();
  const ground = element => {
    if (!grounds.has(element)) {
      const {backgroundColor, backgroundImage, opacity} = getComputedStyle(element);
      const own = [backgroundColor, backgroundImage, opacity].join(" ");
      grounds.set(element, ground(element.parentElement)
                           + (own === "rgba(0, 0, 0, 0) none 1" ? "" : own + ";"));
    }
    return grounds.get(element);
  };
  for (const element of document.body.querySelectorAll("*")) {
    const says = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!says || !element.checkVisibility({visibilityProperty: true})) continue;
    const {color, fontSize, fontWeight} = getComputedStyle(element);
    const kind = [color, fontSize, fontWeight, ground(element)].join("|");
    if (!kinds.has(kind)) kinds.set(kind, []);
    if (kinds.get(kind).length < 3) kinds.get(kind).push(element);
  }
  return axe.run({include: [...kinds.values()].flat()}, options);
}"""


def heard(page: Page, html: Path, faults: list[str]) -> None:
    """Adds to the faults what the console says and what the page asks for in vain or outside."""
    def console(message):
        # A file that did not come is told by its address below.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            faults.append(f"console: {message.text.splitlines()[0][:200]}")

    def request(asked):
        parts = urlsplit(asked.url)
        inside = parts.scheme == "file" and Path(unquote(parts.path)).is_relative_to(html)
        if not inside and parts.scheme not in ("data", "blob", "about"):
            faults.append(f"asks for {asked.url}, outside the book")

    def failed(asked):
        if asked.url.startswith("file:"):
            faults.append(f"{_local(asked.url, html)} did not load")

    page.on("console", console)
    page.on("pageerror", lambda error: faults.append(f"script: {str(error).splitlines()[0][:200]}"))
    page.on("request", request)
    page.on("requestfailed", failed)


def _local(address: str, html: Path) -> str:
    path = Path(unquote(urlsplit(address).path))
    return path.relative_to(html).as_posix() if path.is_relative_to(html) else str(path)


def width_faults(page: Page, width: int) -> Iterator[str]:
    """Whether a page is wider than the screen; on a phone, than the narrowest one too."""
    for screen in (width, NARROWEST) if width < 600 else (width,):
        page.set_viewport_size({"width": screen, "height": 900})
        found = page.evaluate("document.documentElement.scrollWidth")
        if found > screen:
            yield f"is {found} px wide on a screen of {screen} px"
    page.set_viewport_size({"width": width, "height": 900})


def picture_faults(pictures: list[dict]) -> Iterator[str]:
    """Pictures that did not come, or that have no text for who does not see them."""
    for picture in pictures:
        name, alt = picture["name"][:100], picture["alt"].strip()
        if not picture["came"]:
            yield f"picture {name} did not come"
        if not alt or (" " not in alt and Path(alt).suffix[1:].isalpha()):
            yield f"picture {name} has {'a file name for a' if alt else 'no'} text"


def heading_faults(headings: list[list]) -> Iterator[str]:
    """Titles that are not one, and levels that are skipped on the way down."""
    titles = sum(level == 1 for level, _ in headings)
    if titles != 1:
        yield f"has {titles} titles (h1)"
    for (above, _), (level, text) in zip(headings, headings[1:], strict=False):
        if level > above + 1:
            yield f'heading "{text}" is h{level} after h{above}'


def axe_faults(page: Page, theme: str) -> Iterator[str]:
    """What axe finds; on a dark page by its rules on colour alone, others would say the same."""
    only = {"type": "rule", "values": [OF_LINKS]} if theme == "dark" else {
        "type": "tag", "values": WCAG}
    # Its preload would fetch style sheets, which a page of a folder may not.
    options = {"runOnly": only, "resultTypes": ["violations"], "preload": False}
    contrast = options | {"runOnly": {"type": "rule", "values": [CONTRAST]}}
    page.evaluate(AXE_SCRIPT)
    found = (page.evaluate("options => axe.run(options)",
                           options | {"rules": {CONTRAST: {"enabled": False}}})["violations"]
             + page.evaluate(CONTRAST_OF_KINDS, contrast)["violations"])
    for violation in found:
        nodes = violation["nodes"]
        places = "; ".join(_place(node) for node in nodes[:SHOWN])
        more = f"; and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
        yield f"axe {violation['id']}: {violation['help']}: {places}{more}"


def _place(node: dict) -> str:
    html = " ".join(node["html"].split())
    return f"{html[:80]}{'...' if len(html) > 80 else ''} at {str(node['target'][-1])[-60:]}"


def page_faults(page: Page, html: Path, name: str, theme: str, width: int) -> list[str]:
    """Everything wrong with a page of the folder `html`, on a screen of a theme and a width."""
    faults: list[str] = []
    heard(page, html, faults)
    try:
        page.goto((html / name).as_uri(), wait_until="load")
        seen = page.evaluate(LOOK)
        faults += picture_faults(seen["images"] + seen["drawings"])
        faults += heading_faults(seen["headings"])
        faults += axe_faults(page, theme)
        faults += width_faults(page, width)
    except Error as error:
        faults.append(f"could not be looked at: {error.message.splitlines()[0]}")
    return list(dict.fromkeys(faults))
