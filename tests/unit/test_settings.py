"""The settings file: what is read, and how a wrong one is refused."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from failback.errors import SettingsInvalid
from failback.hooks.calls import HookCommand, HookUrl
from failback.settings import Settings, SiteSettings, load_settings
from failback.settings_file import locate
from failback.settings_hooks import HookSettings

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"

SECRET = "gE-heim!"

MINIMAL = """\
[worker]
state_dir = "state"

[sites.production]
url = "https://vcenter.example/sdk"
username = "failback"
password_file = "password"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    password = tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    password.chmod(0o600)
    return tmp_path


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "failback.toml"
    file.write_text(text)
    return load_settings(file, environ)


def refused(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load(folder, text, **environ)
    assert SECRET not in str(caught.value)
    return str(caught.value).replace(f"{folder}/failback.toml, ", "")


def test_defaults_are_those_of_the_documentation(folder: Path) -> None:
    settings = load(folder, MINIMAL)

    documented = dict(
        re.findall(r"^\| `([a-z_.<>0-9]+)` \| `([^`]*)` \|", DOCUMENT.read_text(), re.M)
    )
    assert documented.pop("worker.state_dir") == "/var/lib/failback"
    assert documented.pop("sites.<name>.tls.insecure") == "false"
    for key, default in documented.items():
        value: Any = settings
        for part in key.split("."):
            value = value["production"] if part == "<name>" else getattr(value, part)
        assert value == type(value)({"false": ""}.get(default, default)), key
    assert len(documented) >= 12


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                many = part in (SiteSettings, HookSettings)
                inner = f"{prefix}{name}.<name>." if many else f"{prefix}{name}."
                yield from keys(part, inner)


def test_every_key_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([a-z_.<>0-9]+)` \|", DOCUMENT.read_text(), re.M))

    assert documented == {key for key in keys(Settings) if "." in key and key != "sites.<name>"}


def test_the_documented_example_is_valid(folder: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.S)
    assert example

    settings = load(folder, example[1].replace("/var/lib/failback", "state"))

    assert set(settings.sites) == {"production", "dr"}


def test_relative_paths_are_relative_to_the_file(folder: Path) -> None:
    site = '[sites.production.datastores]\nds = "disks"\nabs = "/mnt/x"\n'

    settings = load(folder, MINIMAL + site)

    assert settings.worker.state_dir == folder / "state"
    assert settings.sites["production"].password_file == folder / "password"
    assert settings.sites["production"].datastores == {
        "ds": folder / "disks",
        "abs": Path("/mnt/x"),
    }


def test_the_catalog_is_in_the_state_directory_unless_told(folder: Path) -> None:
    assert load(folder, MINIMAL).catalog_url == f"sqlite:///{folder}/state/catalog.db"
    for given_url, url in (
        ("sqlite:///my.db", f"sqlite:///{folder}/my.db"),
        ("sqlite:////srv/my.db", "sqlite:////srv/my.db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ):
        assert load(folder, f'{MINIMAL}[catalog]\nurl = "{given_url}"\n').catalog_url == url


def test_durations_and_tuning(folder: Path) -> None:
    text = MINIMAL.replace("[worker]", "[worker]\nheartbeat_timeout_s = 3")
    settings = load(folder, text + "[transfer]\nstep_patience_s = 9\nswitch_patience_s = 2.5\n")

    assert settings.heartbeat_timeout == timedelta(seconds=3)
    assert settings.graceful_shutdown == timedelta(seconds=25)
    assert settings.step_patience == timedelta(seconds=9)
    assert settings.switch_patience == timedelta(seconds=2.5)
    tuning = settings.tuning()
    assert (tuning.heartbeat_timeout, tuning.step_patience, tuning.switch_patience) == (
        settings.heartbeat_timeout,
        settings.step_patience,
        settings.switch_patience,
    )


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("", (None, None, False)),
        ('tls = { ca_file = "ca.pem" }', ("ca.pem", None, False)),
        (f'tls = {{ thumbprint_sha256 = "{"AA:" * 31}AA" }}', (None, f"{'AA:' * 31}AA", False)),
        ("tls = { insecure = true }", (None, None, True)),
    ],
)
def test_a_connection_carries_what_the_site_says(
    folder: Path, tls: str, expected: tuple[str | None, str | None, bool]
) -> None:
    text = f'{MINIMAL}inventory_root = "/DC0/vm/prod"\nrequest_timeout_s = 7\n{tls}\n'

    made = load(folder, text).sites["production"].connection("production")

    assert (made.name, made.url) == ("production", "https://vcenter.example/sdk")
    assert (made.inventory_root, made.request_timeout_s) == ("/DC0/vm/prod", 7)
    assert (
        made.ca_file and made.ca_file.relative_to(folder).name,
        made.thumbprint_sha256,
        made.insecure,
    ) == expected


VDDK = f"""
kind = "vddk"
vddk = {{ libdir = "vddk", thumbprint = "{":".join(["aB"] * 20)}", compression = "skipz" }}
"""


def test_the_way_to_the_disks_of_a_site(folder: Path) -> None:
    assert load(folder, MINIMAL).sites["production"].access().kind == "flat"

    nbd = (
        load(
            folder,
            MINIMAL + 'kind = "nbd"\nnbd = { address = "nbds://h/{path}", tls_dir = "tls" }\n',
        )
        .sites["production"]
        .access()
    )
    vddk = load(folder, MINIMAL + VDDK).sites["production"].access()

    assert (nbd.kind, nbd.address, nbd.tls_dir) == (
        "nbd",
        "nbds://h/{path}",
        folder / "tls",
    )
    assert vddk.vddk
    assert (vddk.vddk.server, vddk.vddk.user) == ("vcenter.example", "failback")
    assert (vddk.vddk.libdir, vddk.vddk.password_file) == (folder / "vddk", folder / "password")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('kind = "ftp"', "sites.production.kind is wrong"),
        ('kind = "nbd"', 'must have a table nbd if its kind is "nbd"'),
        ('nbd = { address = "nbd://h/{path}" }', 'must have a table nbd if its kind is "nbd"'),
        ('kind = "vddk"', 'must have a table vddk if its kind is "vddk"'),
        ('kind = "nbd"\nnbd = { address = "nbd://h/x" }', "has no {path}"),
        ('kind = "nbd"\nnbd = { address = "http://h/{path}" }', "is not an NBD address"),
        ('kind = "nbd"\nnbd = { address = "nbds://h/{path}" }', "must have tls_dir"),
        (VDDK.replace("aB", "xy"), "is not a SHA-1 or SHA-256 thumbprint"),
        (VDDK.replace("skipz", "bzip2"), "vddk.compression is wrong"),
        ('kind = "mover"', "must have mover.address"),
        ('mover = { tls_dir = "tls", address = "dr:7443" }', "must have mover.address"),
        ('mover = { tls_dir = "tls" }', "must have either address"),
        ('mover = { tls_dir = "tls", listen = "7443" }', "is not of the form host:port"),
        (VDDK + 'mover = { tls_dir = "tls", listen = "0.0.0.0:7443" }', "mover service runs here"),
    ],
)
def test_a_way_that_is_incomplete_is_refused(folder: Path, text: str, says: str) -> None:
    assert says in refused(folder, MINIMAL + text)


def test_another_sites_mover(folder: Path) -> None:
    text = MINIMAL + 'kind = "mover"\nmover = { tls_dir = "tls", address = "[fd00::1]:7443" }\n'

    mover = load(folder, text).sites["production"].access().mover

    assert mover
    assert (mover.host, mover.port, mover.server_name, mover.tls_dir) == (
        "fd00::1",
        7443,
        "fd00::1",
        folder / "tls",
    )


def test_the_environment_goes_over_the_file(folder: Path) -> None:
    text = MINIMAL.replace("sites.production", 'sites."Site-1.a"')

    settings = load(
        folder,
        text,
        FAILBACK_TRANSFER__BANDWIDTH_BYTES_PER_S="77",
        FAILBACK_SITES__SITE_1_A__USERNAME="12345",
        FAILBACK_SITES__SITE_1_A__TLS__INSECURE="true",
        FAILBACK_SITES__SITE_1_A__DATASTORES='{ ds = "here" }',
        FAILBACK_CATALOG__URL="sqlite:///x.db",
        FAILBACK_SETTINGS="not this one",
        OTHER="x",
    )

    site = settings.sites["Site-1.a"]
    assert settings.transfer.bandwidth_bytes_per_s == 77
    assert site.username == "12345"
    assert site.tls
    assert site.tls.insecure
    assert site.datastores == {"ds": folder / "here"}
    assert settings.catalog_url == f"sqlite:///{folder}/x.db"


def test_the_file_is_found_by_the_environment(folder: Path, monkeypatch: Any) -> None:
    (folder / "failback.toml").write_text(MINIMAL)
    by_variable = load_settings(None, {"FAILBACK_SETTINGS": str(folder / "failback.toml")})
    monkeypatch.chdir(folder)
    assert load_settings(None, {}) == by_variable
    (folder / "failback.toml").rename(folder / "other.toml")
    monkeypatch.setenv("HOME", str(folder))
    with pytest.raises(SettingsInvalid, match="no settings file"):
        load_settings(None, {})
    (folder / ".config" / "failback").mkdir(parents=True)
    (folder / ".config" / "failback" / "failback.toml").write_text(
        MINIMAL.replace('password_file = "password"', 'password_file = "~/password"')
    )
    assert load_settings(None, {}).read_password("production") == SECRET


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[worker]", "[worker", "line 1: this is not TOML"),
        ('"state"', '"state', "line 2: this is not TOML"),
        ("[worker]", 'a = """', "line 7: this is not TOML"),
        ("[worker]", "x = 1\nx = 2", "line 2: this is not TOML"),
        ("state_dir", "state_dri", "line 2: worker.state_dri is not a known key. Did you mean "
         "worker.state_dir?"),
        ("[worker]", "[workers]", "line 1: workers is not a known key. Did you mean worker?"),
        ("state_dir", "x", "line 2: worker.x is not a known key. Known here: state_dir, movers,"),
        ("username =", "password =", "sites.production.password is not a known key. Take it out:"),
        ('username = "failback"', "", "line 4: sites.production.username is missing. Add it."),
        ('"failback"', "5", "line 6: sites.production.username is wrong: it should be a valid str"),
        ('"failback"', '""', "line 6: sites.production.username is wrong"),
        ("[worker]", '[worker]\nmovers = "4"', "line 2: worker.movers is wrong"),
        ("[worker]", "[worker]\nmovers = true", "line 2: worker.movers is wrong"),
        ("[worker]", "[worker]\nmovers = 0", "line 2: worker.movers is wrong"),
        ("[worker]", "[worker]\ngraceful_shutdown_s = nan", "line 2: worker.graceful_shutdown_s"),
        ("[worker]", "worker = 3\n[x]", "line 1: worker is not a table. Write a table [worker]."),
        ("[worker]", "[transfer]\nsegment_bytes = 65537\n[worker]",
         "line 2: transfer.segment_bytes is not a multiple of 65536"),
        ("https://vcenter", "http://vcenter", "line 5: sites.production.url is not encrypted"),
        ("https://vcenter", f"https://me:{SECRET}@vcenter",
         "line 5: sites.production.url carries a user name or password"),
        ("https://vcenter", "vcenter", "line 5: sites.production.url is not of the form https://"),
        ("https://vcenter.example", "https://[::1", "sites.production.url is not a URL"),
        ("[worker]", f'[catalog]\nurl = "postgresql://me:{SECRET}@h/db"\n[worker]',
         "line 2: catalog.url carries a password"),
        ("[worker]", '[catalog]\nurl = "catalog.db"\n[worker]', "line 2: catalog.url is not of"),
        ("[worker]", '[catalog]\nurl = "sqlite:///:memory:"\n[worker]', "catalog.url names a data"),
        ("username", 'inventory_root = "DC0"\nusername',
         "line 6: sites.production.inventory_root is not an inventory path"),
        ("username", 'tls = { thumbprint_sha256 = "AA:BB" }\nusername',
         "line 6: sites.production.tls.thumbprint_sha256 is not the SHA-256"),
        ("username", "tls = { }\nusername", "line 6: sites.production.tls must have exactly one"),
        ("username", 'tls = { ca_file = "x", insecure = true }\nusername',
         "line 6: sites.production.tls must have exactly one"),
        ("sites.production", 'sites."a b"', 'line 4: sites."a b" cannot be the name of a site'),
        ("[sites.production]", "[sites]", "line 5: sites.url is not a table. Write a table [s"),
        ("username", f'passwd = "{SECRET}"\nusername', "line 6: sites.production.passwd is not a"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_at_its_line(
    folder: Path, old: str, new: str, message: str
) -> None:
    assert message in refused(folder, MINIMAL.replace(old, new, 1))


def test_all_errors_are_listed_in_the_order_of_the_file(folder: Path) -> None:
    text = MINIMAL.replace("state_dir", "movers = 99\nstate").replace("username", "user")

    message = refused(folder, text + "[transfer]\nverify_fraction = 2\n")

    assert message.startswith("The settings have 5 errors. Correct all of them:")
    assert re.findall(r"line (\d+): (\S+)", message) == [
        ("2", "worker.movers"),
        ("3", "worker.state"),
        ("5", "sites.production.username"),
        ("7", "sites.production.user"),
        ("10", "transfer.verify_fraction"),
    ]


def test_an_error_of_the_environment_names_the_variable(folder: Path) -> None:
    for name, key in (
        ("FAILBACK_WORKER__MOVERS", "worker.movers is wrong"),
        ("FAILBACK_WROKER__MOVERS", "wroker is not a known key. Did you mean worker?"),
        ("FAILBACK_SITES__PRODUCTION__URL__X", "sites.production.url is not a table"),
    ):
        message = refused(folder, MINIMAL, **{name: SECRET})
        assert f"environment variable {name}: {key}" in message or key in message


def test_an_empty_file_lacks_its_sites(folder: Path) -> None:
    assert "line 1: sites is missing" in refused(folder, "")


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"nowhere\.toml cannot be read"):
        load_settings(folder / "nowhere.toml", {})
    (folder / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(SettingsInvalid, match="UTF-8"):
        load_settings(folder / "latin.toml", {})


SECOND = """
[sites.dr]
url = "{url}"
username = "failback"
password_file = "password"
{root}
"""


@pytest.mark.parametrize(
    ("url", "first", "second", "fine"),
    [
        ("https://other.example/sdk", None, None, True),
        ("https://vcenter.example/sdk", None, None, False),
        ("https://VCENTER.example:443/", None, None, False),
        ("https://vcenter.example:8443/sdk", None, None, True),
        ("https://vcenter.example/sdk", "/DC0/vm/a", None, False),
        ("https://vcenter.example/sdk", "/DC0/vm/a", "/DC0/vm/a", False),
        ("https://vcenter.example/sdk", "/DC0/vm/a", "/DC0/vm", False),
        ("https://vcenter.example/sdk", "/DC0/vm/a", "/DC0/vm/ab", True),
        ("https://vcenter.example/sdk", "/DC0", "/DC1", True),
    ],
)
def test_sites_of_one_vcenter_have_disjoint_roots(
    folder: Path, url: str, first: str | None, second: str | None, fine: bool
) -> None:
    def root(path: str | None) -> str:
        return f'inventory_root = "{path}"\n' if path else ""

    text = MINIMAL + root(first) + SECOND.format(url=url, root=root(second))

    if fine:
        assert len(load(folder, text).sites) == 2
    else:
        message = refused(folder, text)
        assert "sites.dr.inventory_root does not keep site dr apart from site production" in message


def test_the_state_directory_is_made_private(folder: Path) -> None:
    state = load(folder, MINIMAL).worker.state_dir

    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    state.chmod(0o750)
    message = refused(folder, MINIMAL)
    assert "line 2: worker.state_dir names" in message
    assert f"chmod 700 {state}" in message
    assert stat.S_IMODE(state.stat().st_mode) == 0o750


def test_a_state_directory_that_cannot_be_made_is_refused(folder: Path) -> None:
    assert "cannot be created" in refused(folder, MINIMAL.replace('"state"', '"password"'))


def test_the_password_is_read_when_it_is_used(folder: Path) -> None:
    settings = load(folder, MINIMAL)
    assert settings.read_password("production") == SECRET

    (folder / "password").write_text("another\n")
    assert settings.read_password("production") == "another"
    with pytest.raises(SettingsInvalid, match="no site 'nowhere'"):
        settings.read_password("nowhere")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_password_file_open_to_others_is_refused(folder: Path, mode: int) -> None:
    settings = load(folder, MINIMAL)
    (folder / "password").chmod(mode)

    for use in (settings.read_password, settings.sites["production"].connection):
        with pytest.raises(SettingsInvalid, match=f"has mode {mode:04o}") as caught:
            use("production")
        assert SECRET not in str(caught.value)


def test_a_password_file_that_is_not_there_is_refused_on_use(folder: Path) -> None:
    settings = load(folder, MINIMAL)
    (folder / "password").unlink()
    with pytest.raises(SettingsInvalid, match="FileNotFoundError"):
        settings.read_password("production")
    (folder / "password").mkdir(mode=0o700)
    with pytest.raises(SettingsInvalid, match="is not a file"):
        settings.read_password("production")


def test_settings_hold_no_secret_and_do_not_change(folder: Path) -> None:
    settings = load(folder, MINIMAL)
    settings.read_password("production")

    assert SECRET not in repr(settings) + settings.model_dump_json()
    with pytest.raises(ValidationError):
        settings.worker.movers = 5  # type: ignore[misc]


def test_lines_are_found_through_all_of_toml() -> None:
    text = """\
# comment
a = 1
"b c".d = [
  1, # [x]
  2,
]
e = '''
f = 5
'''
[g.h]
i = { j = 1, k.l = 2 }

[[m]]
n = 1
[o."p.q"]
r = "[s]"
"""

    assert locate(text) == {
        ("a",): 2,
        ("b c",): 3,
        ("b c", "d"): 3,
        ("e",): 7,
        ("g",): 10,
        ("g", "h"): 10,
        ("g", "h", "i"): 11,
        ("g", "h", "i", "j"): 11,
        ("g", "h", "i", "k"): 11,
        ("g", "h", "i", "k", "l"): 11,
        ("m",): 13,
        ("m", "n"): 14,
        ("o",): 15,
        ("o", "p.q"): 15,
        ("o", "p.q", "r"): 16,
    }


@given(st.text(alphabet="[]{}=\"'\\#\n a1.,", max_size=60))
def test_any_text_is_located_or_refused(text: str) -> None:
    locate(text)


def test_hooks_are_read_with_paths_relative_to_the_file(folder: Path) -> None:
    headers = folder / "headers"
    headers.write_text(f"Authorization: Bearer {SECRET}\n")
    headers.chmod(0o600)
    text = MINIMAL + (
        '[hooks.dns-1]\ncommand = ["hooks/dns", "a b"]\n'
        '[hooks.page]\nurl = "https://pager.example/x?y=1"\nheaders_file = "headers"\n'
        '[hooks.near]\nurl = "http://127.0.0.1:8080/"\nmethod = "PUT"\n'
    )

    calls = load(folder, text).calls()

    assert calls.hooks == {
        "dns-1": HookCommand((str(folder / "hooks" / "dns"), "a b")),
        "page": HookUrl("https://pager.example/x?y=1", headers_file=headers),
        "near": HookUrl("http://127.0.0.1:8080/", "PUT"),
    }
    assert set(calls.secret_files) == {folder / "password"}


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("", "must have either command or url"),
        ('command = ["/x"]\nurl = "https://x/"', "must have either command or url"),
        ("command = []", "is empty"),
        ('command = ["sh", "-c"]', "must begin with the path of the program"),
        ('command = ["/x"]\nmethod = "PUT"', "has keys that only a hook with url has"),
        ('url = "ftp://x/"', "not of the form https://host/path"),
        ('url = "https://ann:geheim@x/"', "carries a user name or password"),
        ('url = "http://pager.example/"', "is not encrypted"),
        ('url = "https://x/"\npassword = "x"', "is not a known key"),
    ],
)
def test_a_wrong_hook_is_refused(folder: Path, table: str, complaint: str) -> None:
    message = refused(folder, f"{MINIMAL}[hooks.dns]\n{table}\n")

    assert complaint in message
    assert "geheim" not in message


def test_a_headers_file_that_others_may_read_is_refused(folder: Path) -> None:
    (folder / "headers").write_text("X: y\n")
    (folder / "headers").chmod(0o644)
    settings = load(folder, MINIMAL + '[hooks.a]\nurl = "https://x/"\nheaders_file = "headers"\n')

    with pytest.raises(SettingsInvalid, match="headers file of hook a is open to others"):
        settings.calls()
