"""Write the table of `docs/explainers.md` from the tags of the explainers."""

from pathlib import Path

from skgnnx.testing import explainers_table

PAGE = Path(__file__).parent / "explainers.md"
BEGIN, END = "<!-- table: written by docs/make_explainers_table.py -->\n", "<!-- end of table -->\n"


def with_table(page: str) -> str:
    """Return a page whose part between the two marks is the table of today."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + explainers_table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
