"""A document as PDF. The same document gives the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuyard.billing.invoices import Document
from gpuyard.billing.paper import Paper, lay_out
from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from fpdf import FPDF

_WIDTHS = (58, 44, 34, 24, 30)  # millimetres; 190 is what an A4 page has between its margins
_LINE = 5.0


def to_pdf(document: Document, language: str, font: Path | None) -> bytes:
    """`font`: a TrueType font with the characters of the language and of the names. Without one, Latin-1 is all.

    Raises YardError `extra_missing` where fpdf2 is not installed, `font_missing` where a character has no font.
    """
    try:
        from fpdf import FPDF
    except ImportError:
        raise YardError("extra_missing", extra="invoices", command='pip install "gpuyard[invoices]"') from None
    paper = lay_out(document, language)
    pdf = FPDF(format="A4")
    pdf.set_creation_date(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=document.issued_us))
    pdf.set_title(f"{paper.title} {document.number}")
    pdf.set_lang(language)
    pdf.set_auto_page_break(True, margin=15)
    pdf.add_page()
    family = _use_font(pdf, paper, language, font)
    _head(pdf, paper, family)
    _table(pdf, paper, family)
    _foot(pdf, paper, family)
    return bytes(pdf.output())


def _use_font(pdf: FPDF, paper: Paper, language: str, font: Path | None) -> str:
    parts = [paper.title, *paper.seller, *paper.buyer, *paper.columns, *paper.notes]
    parts += [cell for row in (*paper.rows, *paper.facts, *paper.totals) for cell in row]
    if all(_latin(part) for part in parts):
        return "helvetica"
    if font is None:
        raise YardError("font_missing", language=language)
    try:
        pdf.add_font("yard", fname=str(font))
    except Exception as error:  # fontTools raises what it likes for a file that is no font
        raise YardError("font_missing", language=language) from error
    known: Any = pdf.fonts["yard"]
    if any(ord(letter) not in known.cmap for part in parts for letter in part):
        raise YardError("font_missing", language=language)  # a box where a word should be is no invoice
    return "yard"


def _latin(part: str) -> bool:
    try:
        part.encode("cp1252" if "–" in part else "latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _shown(part: str, family: str) -> str:
    """The built-in fonts have no en dash in Latin-1."""
    return part.replace("–", "-") if family == "helvetica" else part


def _head(pdf: FPDF, paper: Paper, family: str) -> None:
    pdf.set_font(family, size=9)
    for line in paper.seller:
        pdf.cell(0, _LINE, _shown(line, family), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)
    pdf.set_font(family, size=16)
    pdf.cell(0, 9, _shown(paper.title, family), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font(family, size=9)
    for label, value in paper.facts:
        pdf.cell(40, _LINE, _shown(label, family))
        pdf.multi_cell(0, _LINE, _shown(value, family), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(3)
    for line in paper.buyer:
        pdf.cell(0, _LINE, _shown(line, family), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)


def _table(pdf: FPDF, paper: Paper, family: str) -> None:
    pdf.set_font(family, size=8)
    alignments: Any = ("LEFT", "LEFT", "RIGHT", "RIGHT", "RIGHT")
    with pdf.table(
        col_widths=_WIDTHS, text_align=alignments, line_height=4.5, borders_layout="SINGLE_TOP_LINE",
        headings_style=_plain_headings(family),
    ) as table:  # fmt: skip
        for cells in (paper.columns, *paper.rows):
            row = table.row()
            for cell in cells:
                row.cell(_shown(cell, family))
    pdf.ln(3)


def _plain_headings(family: str) -> Any:
    from fpdf import FontFace

    return FontFace(family=family, emphasis="")


def _foot(pdf: FPDF, paper: Paper, family: str) -> None:
    pdf.set_font(family, size=9)
    for label, amount in paper.totals:
        pdf.cell(140, _LINE, _shown(label, family), align="R")
        pdf.cell(50, _LINE, _shown(amount, family), align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(5)
    pdf.set_font(family, size=7)
    for note in paper.notes:
        pdf.multi_cell(0, 3.6, _shown(note, family), new_x="LMARGIN", new_y="NEXT")
