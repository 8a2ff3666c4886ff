"""Middlewares in a configuration: what loads, and how each mistake is explained."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from support.config_documents import UPSTREAM, load, refusal
from support.plugins import Picky, Place
from trio_proxy import Settings, load_file
from trio_proxy.settings import MiddlewareSettings, RouteSettings, SettingError
from trio_proxy.settings.load.plugins import make_middleware
from trio_proxy.settings.load.toml import ConfigError, parse

COUNTS = "[middlewares.m]\nkind = 'support.plugins:Counts'\n"
PICKY = "[middlewares.m]\nkind = 'support.plugins:Picky'\n"
KIND_EXPECTED = '(expected a class by its module, as "package.module:Class")'
CONTRACT = "(expected an attrs class with: async def handle(self, exchange, request, sink, next))"


def told(text: str) -> str:
    """The problems, without the path of the table that they are all in."""
    return refusal(text).replace("middlewares.m.", "")


# What loads


def test_the_keys_of_a_table_are_the_fields_of_its_class() -> None:
    """Each with the value as it is, and what is left out with its default."""
    settings = load(
        PICKY
        + """
        text = "t"
        number = 2
        ratio = 1
        flag = true
        texts = ["a", "b"]
        numbers = [1, 2]
        table = { x = 1 }
        place = { host = "a" }
        places = [{ host = "b", port = 81 }]
        either = "s"
        choice = "b"
        """
    )
    made = make_middleware(settings.middlewares["m"])
    assert made == Picky(
        text="t",
        number=2,
        ratio=1.0,
        flag=True,
        texts=("a", "b"),
        numbers=[1, 2],
        table={"x": 1},
        place=Place("a"),
        places=[Place("b", 81)],
        either="s",
        choice="b",
    )


def test_the_settings_are_plain_data() -> None:
    """They go to workers, each of which makes an instance of its own."""
    settings = load(COUNTS + "name = 'x'\n")
    assert settings.middlewares == {
        "m": MiddlewareSettings(kind="support.plugins:Counts", options={"name": "x"})
    }
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_route_names_them_in_order() -> None:
    text = COUNTS + COUNTS.replace(".m]", ".n]")
    settings = load(text + "[[routes]]\npool = 'default'\nmiddlewares = ['n', 'm']\n")
    assert settings.routes == (RouteSettings(pool="default", middlewares=("n", "m")),)
    assert not list(settings.remarks())


def test_one_that_no_route_names_is_mentioned() -> None:
    assert list(load(COUNTS).remarks()) == ["middlewares.m: no route leads through it"]


def test_who_loads_a_file_can_say_which_names_the_program_will_give(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        UPSTREAM + "[[routes]]\nhandler = 'own'\nmiddlewares = ['guard']\n"
        "[[routes]]\npath = '/v1'\npool = 'default'\n"
    )
    settings = load_file(path, handlers={"own": None}, middlewares=["guard"])
    assert settings.routes[0] == RouteSettings(handler="own", middlewares=("guard",))


def test_with_handlers_alone_no_upstream_is_needed() -> None:
    settings = parse("[[routes]]\nhandler = 'own'\n", source="x.toml", handlers=["own"])
    assert settings == Settings(routes=(RouteSettings(handler="own"),))
    assert not list(settings.remarks())


# What is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", f"kind: is missing {KIND_EXPECTED}"),
        ("kind = 3", f"kind: is 3 {KIND_EXPECTED}"),
        ("kind = 'Class'", f'kind: is "Class" {KIND_EXPECTED}'),
        ("kind = 'a b:C'", f'kind: is "a b:C" {KIND_EXPECTED}'),
        (
            "kind = 'nowhere:C'",
            'kind: is "nowhere:C", and there is no module nowhere'
            " (expected one that Python finds: see --app-dir, or PYTHONPATH)",
        ),
        (
            "kind = 'support.nowhere:C'",
            'kind: is "support.nowhere:C", and there is no module support.nowhere'
            " (expected one that Python finds: see --app-dir, or PYTHONPATH)",
        ),
        (
            "kind = 'support.plugins:Nobody'",
            f'kind: is "support.plugins:Nobody", and the module has no Nobody {KIND_EXPECTED}',
        ),
        *(
            (
                f"kind = 'support.plugins:{name}'",
                f'kind: is "support.plugins:{name}", which is no middleware {CONTRACT}',
            )
            for name in ("NoAttrs", "NotAsync", "HandlerOnly", "Place", "hello", "OWN")
        ),
    ],
)
def test_a_kind_that_is_no_middleware_is_explained(text: str, problem: str) -> None:
    assert told(f"[middlewares.m]\n{text}\n") == problem


@pytest.mark.parametrize(
    "kind",
    [
        *("access", "basic_auth", "forward_auth", "headers", "cors"),
        *("compress", "cache", "rate_limit", "error_pages"),
    ],
)
def test_the_kinds_of_the_published_format_are_refused_and_not_ignored(kind: str) -> None:
    """Their keys are not complained of, too."""
    expected = f'kind: is "{kind}", which is not supported by this version {KIND_EXPECTED}'
    assert told(f"[middlewares.m]\nkind = '{kind}'\nallow = ['10.0.0.0/8']\n") == expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = (", "SyntaxError: '(' was never closed (broken_plugin.py, line 1)"),
        ("\n\nx = 1 / 0", "ZeroDivisionError: division by zero ({path}:3)"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere' ({path}:1)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    path = tmp_path / "broken_plugin.py"
    path.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert told("[middlewares.m]\nkind = 'broken_plugin:C'\n") == (
        f'kind: is "broken_plugin:C", and its import fails: {why.format(path=path)}'
        " (expected a module that can be imported)"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "text: is missing (expected a text)"),
        ("text = 5", "text: is 5 (expected a text)"),
        ("text = 'x'\nnumber = '5'", 'number: is "5" (expected an integer)'),
        ("text = 'x'\nnumber = true", "number: is true (expected an integer)"),
        ("text = 'x'\nnumber = 1.0", "number: is 1.0 (expected an integer)"),
        ("text = 'x'\nratio = 'x'", 'ratio: is "x" (expected a number)'),
        ("text = 'x'\nflag = 1", "flag: is 1 (expected true or false)"),
        ("text = 'x'\ntexts = 'abc'", 'texts: is "abc" (expected an array, as ["abc"])'),
        ("text = 'x'\ntexts = ['a', 5]", "texts[1]: is 5 (expected a text)"),
        ("text = 'x'\nnumbers = {}", "numbers: is a table (expected an array)"),
        ("text = 'x'\ntable = { a = 'b' }", 'table.a: is "b" (expected an integer)'),
        ("text = 'x'\ntable = []", "table: is an array (expected a table)"),
        ("text = 'x'\nplace = 'b'", 'place: is "b" (expected a table)'),
        ("text = 'x'\nplace = {}", "place.host: is missing (expected a text)"),
        (
            "text = 'x'\nplace = { host = 'a', prt = 1 }",
            'place.prt: is not a known key (did you mean "port"?)',
        ),
        ("text = 'x'\nplaces = [{ host = 1 }]", "places[0].host: is 1 (expected a text)"),
        ("text = 'x'\neither = []", "either: is an array (expected an integer or a text)"),
        ("text = 'x'\ntxets = []", 'txets: is not a known key (did you mean "texts"?)'),
        (
            "text = 'x'\nsecret = 5",
            "secret: is not what it should be (expected a text; the value is not shown)",
        ),
        (
            "text = 'x'\nchoice = 'c'",
            "choice: is refused: 'choice' must be in ['a', 'b'] (got 'c')"
            " (expected what its class accepts)",
        ),
    ],
)
def test_a_wrong_option_is_told_by_its_key_and_what_was_expected(text: str, problem: str) -> None:
    assert told(f"{PICKY}{text}\n") == problem


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("text = 'x'\npositive = 0", "n has to be above 0"),
        ("text = 'explode'", "RuntimeError: exploded"),
    ],
)
def test_what_a_class_refuses_by_itself_is_told_with_its_words(text: str, why: str) -> None:
    expected = f"middlewares.m: is refused: {why} (expected what its class accepts)"
    assert refusal(f"{PICKY}{text}\n") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            COUNTS + "[[routes]]\npool = 'default'\nmiddlewares = ['mm']",
            'routes[0].middlewares[0]: is "mm", and there is no such middleware'
            ' (did you mean "m"?)',
        ),
        (
            "[[routes]]\npool = 'default'\nmiddlewares = ['m']",
            'routes[0].middlewares[0]: is "m", and there is no such middleware'
            " (expected a [middlewares.NAME] table)",
        ),
        (
            "[[routes]]\npool = 'default'\nmiddlewares = 'm'",
            'routes[0].middlewares: is "m" (expected an array, as ["m"])',
        ),
        (
            "[[routes]]\nhandler = 'own'",
            'routes[0].handler: is "own", and there is no such handler (expected a program'
            " to give it to trio_proxy.open_proxy: a file alone has none)",
        ),
        (
            "[[routes]]\nhandler = 'own'\npool = 'default'",
            "routes[0].handler: is given beside pool (expected one of the two)",
        ),
        ("[[routes]]\npath = '/'", "routes[0].pool: is missing (expected the name of a pool)"),
        (
            "[middlewares.M]\nkind = 'support.plugins:Counts'",
            'middlewares.M: is no name of a middleware (expected 1 to 64 of a-z, 0-9, "_" and "-")',
        ),
        ("middlewares = 3", "middlewares: is 3 (expected a table of tables)"),
        ("[middlewares]\nm = 3", "middlewares.m: is 3 (expected a table)"),
    ],
)
def test_names_and_tables_that_do_not_fit_are_refused(text: str, problem: str) -> None:
    assert problem in refusal(f"{text}\n").splitlines()


def test_every_problem_is_told_in_one_go() -> None:
    """Of tables, of their options, and of names in routes."""
    text = (
        PICKY + "text = 1\nnumber = 'x'\n[middlewares.n]\nkind = 'cors'\n"
        "[timeouts]\nread_ms = -1\n[[routes]]\npool = 'default'\nmiddlewares = ['o']\n"
    )
    paths = [line.partition(": ")[0] for line in refusal(text).splitlines()]
    assert sorted(paths) == [
        "middlewares.m.number",
        "middlewares.m.text",
        "middlewares.n.kind",
        "routes[0].middlewares[0]",
        "timeouts.read_ms",
    ]


def test_settings_of_a_program_are_held_to_the_same_form() -> None:
    with pytest.raises(SettingError, match="kind: is 5"):
        MiddlewareSettings(kind=5)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="options: is an array"):
        MiddlewareSettings(kind="a:B", options=[1])  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="handler: is given beside pool"):
        RouteSettings(pool="a", handler="b")


def test_a_faulty_file_names_no_module_twice(tmp_path: Path) -> None:
    """A module is imported by what the path has, however often the file is read."""
    path = tmp_path / "x.toml"
    path.write_text(UPSTREAM + PICKY)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            load_file(path)
        assert str(caught.value) == f"{path}: middlewares.m.text: is missing (expected a text)"
