"""A CSV of labels: read as it was meant, or refused in a line that names file, line, field and remedy."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.sources.label_table import Line, read_table
from fedflair.errors import DataError


def read(folder: Path, content: str | bytes, separator: str | None = None, limits: Limits = DEFAULT) -> list[Line]:
    file = folder / "labels.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(file, separator, limits)


def error_of(folder: Path, content: str | bytes, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'labels.csv'}: ")
    return message.removeprefix(f"{folder / 'labels.csv'}: ")


def test_a_line_is_a_photograph(tmp_path: Path) -> None:
    lines = read(
        tmp_path,
        "path,user,labels,fine_labels,partition\n"
        "x/1.jpg,anna,cat|sofa,tabby,train\n"
        "\n"
        '"b, c.png",  bob ,,,dev\n'
        "./y//2.jpg,zoe, cat | cat ,a|b, Test\n",
    )
    assert lines == [
        Line(2, "x/1.jpg", "anna", ("cat", "sofa"), ("tabby",), "train"),
        Line(4, "b, c.png", "bob", (), (), "val"),
        Line(5, "y/2.jpg", "zoe", ("cat",), ("a", "b"), "test"),
    ]


def test_without_a_column_the_first_folder_is_the_user(tmp_path: Path) -> None:
    lines = read(tmp_path, "labels,path\ncat,anna/holiday/1.jpg\n")
    assert lines == [Line(2, "anna/holiday/1.jpg", "anna", ("cat",), (), None)]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffpath,labels\nä/1.jpg,cat|sofa\n".encode(),
        b"path;labels\r\n\xc3\xa4/1.jpg;cat|sofa\r\n",
        b"Path \tLABELS\n\xc3\xa4/1.jpg\tcat|sofa",
        b'"path","labels"\r\xc3\xa4/1.jpg,cat|sofa\r',
        b"\n\npath,labels\n\xc3\xa4/1.jpg, cat|sofa\n",
    ],
    ids=["byte-order mark", "semicolons", "tabs", "quotes, old line ends", "empty lines first"],
)
def test_as_spreadsheets_save_it(tmp_path: Path, content: bytes) -> None:
    (line,) = read(tmp_path, content)
    assert (line.path, line.user_id, line.labels) == ("ä/1.jpg", "ä", ("cat", "sofa"))


def test_another_separator(tmp_path: Path) -> None:
    content = "path,labels\na/1.jpg,cat;sofa\na/2.jpg,x|y\n"
    assert [line.labels for line in read(tmp_path, content, ";")] == [("cat", "sofa"), ("x|y",)]
    single = 'path,labels\na/1.jpg,"tench, Tinca tinca"\n'
    assert read(tmp_path, single, "|")[0].labels == ("tench, Tinca tinca",)


IDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=20)
NAMES = IDS.map(lambda text: text.replace("|", "/").strip()).filter(bool)


@given(st.lists(st.tuples(IDS.filter(str.strip), st.lists(NAMES, max_size=3)), min_size=1, max_size=4))
def test_any_ids_and_labels_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[str]]]
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerow(["path", "user", "labels"])
    for number, (user, names) in enumerate(rows):
        writer.writerow([f"{number}.jpg", user, "|".join(names)])
    found = read(tmp_path_factory.getbasetemp(), buffer.getvalue(), "|")

    def with_plain_ends(text: str) -> str:
        return text.replace("\r\n", "\n").replace("\r", "\n").strip()

    assert [(line.user_id, line.labels) for line in found] == [
        (with_plain_ends(user), tuple(dict.fromkeys(map(with_plain_ends, names)))) for user, names in rows
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; its first line names the columns: path,user,labels,fine_labels,partition"),
        ("path,labels\n", "lists no photograph; add a line for each"),
        ("a/1.jpg,cat\n", "line 1: column 'a/1.jpg' is none of path, user, labels, fine_labels, partition"),
        ("path,lables\na/1.jpg,cat\n", "line 1: column 'lables' is none of ... ; did you mean 'labels'?"),
        ("path,labels,width\na/1.jpg,cat,3\n", "line 1: column 'width' is none of ... ; rename or remove it"),
        ("path,labels,path\n", "line 1: column 'path' comes twice; remove one of them"),
        ("path,user\na/1.jpg,b\n", "line 1: no column 'labels'; add it: the first line names the columns"),
        ("path,labels\na/1.jpg\n", "line 2: has 1 fields where the first line names 2; put values that hold the"),
        ("path,labels\na/1.jpg,cat\na/2.jpg,c,d\n", "line 3: has 3 fields where the first line names 2"),
        ('path,labels\na/1.jpg,cat\n"a/2.jpg,cat\n\n', "line 3: is no CSV (unexpected end of data); put a value"),
        ('path,labels\na/1.jpg,"cat"x\n', '''line 2: is no CSV (',' expected after '"'); put a value that holds'''),
        ("path,labels\n../1.jpg,cat\n", "line 2: path '../1.jpg' leads out of the folder of --source; name the"),
        ("path,labels\na/../../1.jpg,cat\n", "line 2: path 'a/../../1.jpg' leads out of the folder"),
        ("path,labels\n/etc/passwd,cat\n", "line 2: path '/etc/passwd' leads out of the folder"),
        ("path,labels\n,cat\n", "line 2: path is empty; name the photograph, relative to --source"),
        ("path,labels\n1.jpg,cat\n", "line 2: path '1.jpg' lies in no user's folder; put it into one, or add a column"),
        ("path,user,labels\n1.jpg, ,cat\n", "line 2: user '' is empty or holds a NUL; name the photograph's user"),
        (f"path,user,labels\n1.jpg,{'u' * 1001},cat\n", "line 2: user 'uuu ... has more than 1,000 bytes; shorten it"),
        ("path,labels\na/1.jpg,cat||dog\n", "line 2: labels 'cat||dog' hold an empty label; name one on each side of"),
        ("path,labels,fine_labels\na/1.jpg,cat,x|\n", "line 2: fine_labels 'x|' hold an empty label"),
        ("path,labels,partition\na/1.jpg,cat,trian\n", "line 2: partition 'trian' is unknown; write train, val or"),
        ("path,labels,partition\na/1.jpg,cat,train\na/2.jpg,cat,\n", "line 3: partition is empty; write train, val or"),
        ("path,labels\na/1.jpg,cat\n./a//1.jpg,dog\n", "line 3: path 'a/1.jpg' is in line 2 already; remove one of"),
        (
            "path,labels,partition\na/1.jpg,cat,train\na/2.jpg,cat,val\n",
            "line 3: user 'a' is in partition 'val' here and in 'train' in line 2; a user belongs to one partition",
        ),
        ("path,labels\na/1.jpg,cat;dog\n", "line 2: labels 'cat;dog' would be one label; separate labels by '|', or"),
        ('path,labels\na/1.jpg,"cat,dog"\n', "line 2: labels 'cat,dog' would be one label; ... --label_separator ','"),
        (b"path,labels\na/1.jpg,cat\na/2.jpg,k\xe4se\n", "line 3: is not UTF-8 text; save the file as CSV in UTF-8"),
        ("path,labels\na/1.jpg,cat\n".encode("utf-16"), "is UTF-16 text; save it as CSV in UTF-8"),
        (f"path,labels\na/1.jpg,{'x' * 200_000}\n", "line 2: is no CSV (field larger than field limit (131072))"),
    ],
)  # fmt: skip
def test_what_is_off_is_named_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    found = error_of(tmp_path, content)
    assert all(part in found for part in message.split(" ... ")), found


def test_a_nul_is_refused_by_every_python(tmp_path: Path) -> None:
    assert error_of(tmp_path, "path,labels\na/\x001.jpg,cat\n").startswith("line 2: ")


def test_its_size_is_bounded(tmp_path: Path) -> None:
    found = error_of(tmp_path, "path,labels\na/1.jpg,cat\n", limits=Limits(label_bytes=20))
    assert found == "has 24 bytes, more than the 20 that are read; see --max_label_bytes"
