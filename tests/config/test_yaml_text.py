"""YAML that somebody damaged, or meant to be heavy, is refused with words; what people write is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fedflair.config.yaml_text import parse_yaml, read_yaml

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10)
)
CHAIN = "a0: &a0 []\n" + "".join(f"a{k}: &a{k} [*a{k - 1}]\n" for k in range(1, 60))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 50_000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("{a: " * 50_000, "nested too deeply"),
        (BOMB, "too large"),
        (CHAIN, "nested too deeply"),
        ("&a [*a]", "used before its value has ended"),
        ("a: *b", "used before its value has ended"),
        ("a: " + "9" * 5000, "a number of 5,000 digits"),
        ("a: 0x" + "f" * 5000, "a number of 5,002 digits"),
        ("a: !!bool maybe", "maybe"),
        ("!!timestamp x", "."),
        ("a: 2001-99-99", "month must be in"),
        ("{[1]: 2}", "unhashable"),
        ("\0", "unacceptable character"),
        ("a: [", "while parsing"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
    ],
)
def test_what_is_no_yaml_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_yaml(text)
    assert len(str(caught.value).splitlines()) == 1


def test_what_people_write_is_read(tmp_path: Path) -> None:
    text = "a: &a {rate: 0.1, names: [x, é]}\nb:\n  <<: *a\n  rate: 1e-2\nc: [1, true, null, '9', -.inf]\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "c.yaml") == yaml.safe_load(text)
    (tmp_path / "c.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_yaml(tmp_path / "c.yaml")
