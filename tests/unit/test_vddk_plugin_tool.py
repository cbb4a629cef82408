"""tools/vddk_plugin.py: where the plugin comes from, and that nothing unsigned is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.test_tools import Calls, host, script
from tools import vddk_plugin
from tools.host import Done, Host, Problem

DEBIAN = "ID=debian\n"
MIRROR = "'https://mirror.test/debian/dists/bookworm/InRelease' mirror.test_InRelease 0 \n"
SECURITY = "'https://mirror.test/debian-security/dists/x/InRelease' y 0 \n"


def machine(
    tmp_path: Path, *, mirrors: str = SECURITY + MIRROR, update: Done | None = None
) -> tuple[Host, Calls, list[str]]:
    """A Debian whose apt and dpkg only pretend; third: what apt was configured with."""
    programs = tmp_path / "bin"
    for name in ("apt-get", "dpkg-deb", "nbdkit"):
        script(programs / name)
    configured: list[str] = []

    def apt_get(argv: Sequence[str]) -> Done:
        if "--print-uris" in argv:
            return Done(0, mirrors)
        work = Path(argv[argv.index("-c") + 1]).parent
        if "update" in argv:
            configured.append((work / "apt.conf").read_text())
            configured.append((work / "sources" / "plugin.sources").read_text())
            return update or Done(0, "")
        (work / f"{argv[-1]}_1_amd64.deb").touch()
        return Done(0, "")

    def dpkg_deb(argv: Sequence[str]) -> Done:
        folder = Path(argv[-1], "usr", "lib")
        folder.mkdir(parents=True)
        (folder / vddk_plugin.PROGRAM).write_text("plugin")
        return Done(0, "")

    def nbdkit(argv: Sequence[str]) -> Done:
        return Done(0, "name=vddk\n" if "--dump-plugin" in argv else "plugindir=/nowhere\n")

    calls = Calls(apt_get=apt_get, dpkg_deb=dpkg_deb, nbdkit=nbdkit)
    return host(tmp_path, programs, run=calls, os_release=DEBIAN), calls, configured


def test_it_is_fetched_once_from_the_system_s_mirror_and_only_signed(tmp_path: Path) -> None:
    on, calls, configured = machine(tmp_path)

    plugin = vddk_plugin.ensure(on)

    assert plugin.read_text() == "plugin"
    assert [path.name for path in plugin.parent.iterdir()] == [vddk_plugin.PROGRAM]
    config, source = configured
    assert "URIs: https://mirror.test/debian\n" in source
    assert "trixie" in source
    assert 'AllowUnauthenticated "false"' in config
    assert 'AllowInsecureRepositories "false"' in config
    fetched = len(calls.seen)
    assert vddk_plugin.ensure(on) == plugin
    assert not [argv for argv in calls.seen[fetched:] if "apt-get" in argv[0]]


def unsigned(tmp_path: Path) -> Host:
    said = "E: The repository is not signed.\nW: NO_PUBKEY 1234"
    return machine(tmp_path, update=Done(100, said))[0]


def without_mirror(tmp_path: Path) -> Host:
    return machine(tmp_path, mirrors=SECURITY)[0]


def without_apt(tmp_path: Path) -> Host:
    return host(tmp_path, tmp_path / "empty", run=Calls())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (unsigned, "install the newest debian-archive-keyring"),
        (without_mirror, "names no Debian mirror"),
        (without_apt, "install nbdkit-plugin-vddk"),
    ],
)
def test_where_it_cannot_be_had_a_sentence_says_why(
    tmp_path: Path, make: Callable[[Path], Host], sentence: str
) -> None:
    with pytest.raises(Problem, match=sentence):
        vddk_plugin.ensure(make(tmp_path))
    assert not list(tmp_path.rglob(vddk_plugin.PROGRAM))


def test_a_plugin_that_was_named_or_is_installed_is_taken(tmp_path: Path) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "plugins"
    script(programs / "nbdkit")
    folder.mkdir()
    calls = Calls(nbdkit=Done(0, f"version=1\nplugindir={folder}\n"))
    on = host(tmp_path, programs, run=calls)
    assert vddk_plugin.locate(on) is None
    (folder / vddk_plugin.PROGRAM).touch()
    assert vddk_plugin.locate(on) == folder / vddk_plugin.PROGRAM
    named = host(tmp_path, programs, run=calls, env={"FAILBACK_VDDK_PLUGIN": "/nowhere.so"})
    with pytest.raises(Problem, match="unset or mend it"):
        vddk_plugin.locate(named)
