"""What `make mutants` does not try, as no test that runs later can notice it."""

import ast
from pathlib import Path

from scripts.mutants import _at_import, _same_sql

MADE = """
def row(says): ...
def given(): ...
def tabled(): ...
def lazy(): ...
def both(): ...
"""
USES = """
from dsmt.made import both, given, lazy, row, tabled
def _rows(): return row(given)
ROWS = _rows(), row(None), both()
TABLE = {"a": tabled, "b": lambda: lazy()}
def runs(): return both()
if __name__ == "__main__":
    runs()
"""


def test_what_only_imports_call_is_not_tried_and_what_they_keep_for_later_is(tmp_path: Path) -> None:
    (tmp_path / "dsmt").mkdir()
    (tmp_path / "dsmt" / "made.py").write_text(MADE)
    (tmp_path / "dsmt" / "uses.py").write_text(USES)
    found = _at_import(tmp_path)
    assert found & {f"dsmt.made.{name}" for name in ("row", "given", "tabled", "lazy", "both")} == {"dsmt.made.row"}
    assert found & {"dsmt.uses._rows", "dsmt.uses.runs"} == {"dsmt.uses._rows"}


PLANTED = """
def x_row__mutmut_orig(): return one("SELECT row FROM rows WHERE kind = ''", "the Row")
def x_row__mutmut_1(): return one("select row from rows where kind = ''", "the Row")
def x_row__mutmut_2(): return one("XXSELECT row FROM rows WHERE kind = ''XX", "the Row")
def x_row__mutmut_3(): return one("SELECT row FROM rows WHERE kind = ''", "the row")
def x_row__mutmut_4(): return one(None, "the Row")
class Rows:
    def xǁRowsǁput__mutmut_orig(self): self.do("UPDATE rows SET kind = 'old'")
    def xǁRowsǁput__mutmut_1(self): self.do("UPDATE ROWS SET KIND = 'OLD'")
"""


def test_sql_in_other_case_is_not_tried_but_where_it_quotes() -> None:
    assert _same_sql(ast.parse(PLANTED)) == {"x_row__mutmut_1"}
