"""One spelling per path, URL and address; nothing invisible in what people are shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.forms import FORMS, Email, NotCanonical, Uri, email, path, uri, visible


@pytest.mark.parametrize(
    "text", ["/", "/data/x", "a/b.txt", "/data/.hidden", "/data/...", "/data/café", "/a b/c:d"]
)
def test_canonical_path_is_returned_as_it_is(text: str) -> None:
    assert path(text) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("/data/", "/data"),
        ("/data//x", "/data/x"),
        ("//data", "/data"),
        ("/data/./x", "/data/x"),
        ("/data/../etc", "/etc"),
        ("a/../b", "b"),
        ("./a", "a"),
        ("/cafe\u0301", "/café"),
        ("/..", None),
        ("../x", None),
        (".", None),
        ("", None),
    ],
)
def test_other_spelling_of_a_path_is_refused_and_the_right_one_named(
    text: str, canonical: str | None
) -> None:
    with pytest.raises(NotCanonical) as refused:
        path(text)
    assert refused.value.canonical == canonical


@pytest.mark.parametrize(
    "text",
    [
        "/a\x00b",
        "/a\nb",
        "C:/x",
        "c:x",
        "/a\\b",
        "file:/etc/passwd",
        "/%2e%2e/x",
        "/a%2Fb",
        "/%252e%252e/x",
        "/a%00",
        "~/x",
        "~root/x",
        "/\uff0e\uff0e/x",
        "/\u2025/x",
        "/a\uff0fb",
        "/a\uff3cb",
        "/" + "a" * 9_000,
    ],
)
def test_path_that_could_mean_two_things_is_refused_without_a_guess(text: str) -> None:
    with pytest.raises(NotCanonical) as refused:
        path(text)
    assert refused.value.canonical is None


def test_url_is_taken_apart() -> None:
    text = "https://api.example:8443/v1/x?q=1"
    assert uri(text) == Uri("https", "api.example", 8443, "/v1/x", "q=1", text)
    assert uri("https://api.example").path == uri("https://api.example/").path == "/"
    assert uri("http://[::1]/x").host == "::1"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("HTTPS://acme.com/", "https://acme.com/"),
        ("https://ACME.com/", "https://acme.com/"),
        ("https://acme.com./", "https://acme.com/"),
        ("https://acme.com:443/", "https://acme.com/"),
        ("https://acme.com:/", "https://acme.com/"),
        ("https://acme.com?x", "https://acme.com/?x"),
        ("https://acme.com/?", "https://acme.com/"),
        ("https://acme.com/a#b", "https://acme.com/a"),
        ("https://acme.com/a/../b", "https://acme.com/b"),
        ("https://acme.com/a/.", "https://acme.com/a/"),
        ("https://acme.com//a", "https://acme.com/a"),
        ("https://acme.com/%61", "https://acme.com/a"),
        ("https://acme.com/%c3%a4", "https://acme.com/%C3%A4"),
        ("https://acme.com/ä", "https://acme.com/%C3%A4"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
    ],
)
def test_other_spelling_of_a_url_is_refused_and_the_right_one_named(
    text: str, canonical: str
) -> None:
    with pytest.raises(NotCanonical) as refused:
        uri(text)
    assert refused.value.canonical == canonical
    assert uri(canonical).text == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme.com",
        "//acme.com/",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "ftp://acme.com/",
        "https:///x",
        "https://u@acme.com/",
        "https://acme.com@evil.io/",
        "https://acme.com\\@evil.io/",
        "https://acme.com /",
        "https://acme.com/\n",
        "https://acme.com:0/",
        "https://acme.com:65536/",
        "https://acme.com:x/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://[::ffff:127.0.0.1]/",
        "https://[::1%25eth0]/",
        "https://[::1].evil/",
        "https://a%2ecom/",
        "https://-a.com/",
        "https://a..b/",
        "https://faß.de/",
        "https://xn--zzzzzz--.example/",
        "https://acme。com/",
        "https://acme.com/..",
        "https://acme.com/%2e%2e/x",
        "https://acme.com/a%2fb",
        "https://acme.com/a%252fb",
        "https://acme.com/%zz",
        "https://acme.com/..;x/b",
    ],
)
def test_url_that_could_mean_two_things_is_refused_without_a_guess(text: str) -> None:
    with pytest.raises(NotCanonical) as refused:
        uri(text)
    assert refused.value.canonical is None


def test_mail_address_is_taken_apart() -> None:
    assert email("Jo.Doe+x@acme.com") == Email("Jo.Doe+x", "acme.com", "Jo.Doe+x@acme.com")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@acme.com",
        "a@",
        "a@b@acme.com",
        "evil@x.io,boss@acme.com",
        "Boss <boss@acme.com>",
        '"a b"@acme.com',
        "a..b@acme.com",
        "a@[127.0.0.1]",
        "a@127.0.0.1",
        "a@acme.com ",
        "a@acme.com\n",
        "ä@acme.com",
        "a@ACME.com",
        "a@acme.com.",
        "a@bücher.example",
        "a" * 65 + "@acme.com",
    ],
)
def test_anything_but_one_plain_address_is_refused(text: str) -> None:
    with pytest.raises(NotCanonical):
        email(text)


@given(st.sampled_from(sorted(FORMS)), st.text(alphabet="aA.~/\\:@%2eE5?#[] ;\u0301é\u200b１0x-"))
def test_what_is_accepted_is_exactly_what_was_given_and_a_suggestion_is_accepted(
    form: str, text: str
) -> None:
    try:
        parsed = FORMS[form](text)
    except NotCanonical as refused:
        if refused.canonical is not None:
            FORMS[form](refused.canonical)
        return
    assert (parsed if isinstance(parsed, str) else parsed.text) == text
    if form == "path":
        assert not {"", ".", ".."} & set(text.removeprefix("/").split("/")) or text == "/"
        assert unicodedata.is_normalized("NFC", text)


def test_the_problem_never_quotes_the_text() -> None:
    for form in FORMS.values():
        with pytest.raises(NotCanonical) as refused:
            form("se\x00cret")
        assert "cret" not in str(refused.value)


def test_visible_leaves_readable_text_alone() -> None:
    assert visible("Zahle 5 € an Jürgen (日本)") == "Zahle 5 € an Jürgen (日本)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", r"a\u{202e}b"),
        ("a\u200bb", r"a\u{200b}b"),
        ("a\u00a0b", r"a\u{a0}b"),
        ("\x1b[2K", r"\u{1b}[2K"),
        ("a\r\nb", r"a\r\nb"),
        ("\u3164", r"\u{3164}"),
        ("\ufe0f", r"\u{fe0f}"),
        ("\U000e0041", r"\u{e0041}"),
        ("\ud800", r"\u{d800}"),
        (r"a\u{202e}b", r"a\\u{202e}b"),
    ],
)
def test_visible_shows_what_hides_and_cannot_be_forged(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(), st.text())
def test_visible_never_shows_two_texts_alike(one: str, two: str) -> None:
    assert (visible(one) == visible(two)) == (one == two)
    assert visible(one).isprintable() or not visible(one).isascii()
