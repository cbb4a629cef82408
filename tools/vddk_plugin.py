"""Fetches nbdkit's VDDK plugin for the tests, where the system's own packages do not have it.

Debian packages the plugin from release 13 on; that file runs unchanged in the nbdkit of release 12.
It is taken out of the package and nothing is installed: apt works in folders of its own, with the
system's mirror, and accepts only what Debian's archive key has signed. VMware's library, which the
plugin loads, is no part of this: the tests bring one of their own.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tools.cache import cache_dir, find, obtain
from tools.host import Host, Problem, long_step, tail

SUITE = "trixie"
COMPONENT = "contrib"
PACKAGE = "nbdkit-plugin-vddk"
KIND = "vddk-plugin"
PROGRAM = "nbdkit-vddk-plugin.so"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def cache_key(host: Host) -> str:
    """Names the plugin by where it comes from and the machine it runs on."""
    return f"{SUITE}-{host.system}-{host.arch}"


def locate(host: Host) -> Path | None:
    """Find the plugin without fetching it: FAILBACK_VDDK_PLUGIN, nbdkit's own, then the cache."""
    if named := host.env.get("FAILBACK_VDDK_PLUGIN"):
        plugin = Path(named).absolute()
        if not plugin.is_file():
            raise Problem(
                f"FAILBACK_VDDK_PLUGIN names {plugin}, which is not there: unset or mend it."
            )
        return plugin
    return _installed(host) or find(cache_dir(host.env), KIND, cache_key(host), PROGRAM)


def ensure(host: Host) -> Path:
    """Return the plugin, fetched where that has not been done."""
    if ready := locate(host):
        return ready

    def produce(target: Path) -> None:
        with long_step("fetching nbdkit's VDDK plugin", "a few seconds"):
            _fetch(host, target)
        if not _is_plugin(host, target):
            raise Problem(f"The VDDK plugin of {SUITE} does not load in this nbdkit.")

    return obtain(cache_dir(host.env), KIND, cache_key(host), PROGRAM, produce)


def _installed(host: Host) -> Path | None:
    nbdkit = host.which("nbdkit")
    if nbdkit is None:
        return None
    found = re.search(r"^plugindir=(.+)$", host.run([str(nbdkit), "--dump-config"]).output, re.M)
    plugin = Path(found[1], PROGRAM) if found else None
    return plugin if plugin is not None and plugin.is_file() else None


def _is_plugin(host: Host, plugin: Path) -> bool:
    nbdkit = host.which("nbdkit")
    if nbdkit is None:
        return False
    done = host.run([str(nbdkit), str(plugin), "--dump-plugin"], timeout_s=20)
    return done.status == 0 and "name=vddk" in done.output.split()


def _fetch(host: Host, target: Path) -> None:
    """Write the plugin to `target`; works in the folder that it will be in."""
    if not host.has_apt or host.which("dpkg-deb") is None:
        raise Problem(
            f"nbdkit's VDDK plugin is not there: install {PACKAGE} (or nbdkit-vddk-plugin), or set"
            f" FAILBACK_VDDK_PLUGIN to its {PROGRAM}."
        )
    work = target.parent / "apt"
    try:
        for folder in ("lists/partial", "archives/partial", "sources", "files"):
            (work / folder).mkdir(mode=0o700, parents=True)
        _apt(host, work, "update")
        _apt(host, work, "download", PACKAGE)
        packages = list(work.glob(f"{PACKAGE}_*.deb"))
        if len(packages) != 1:
            raise Problem(f"apt-get said it downloaded {PACKAGE}, and the file is not there.")
        done = host.run(["dpkg-deb", "-x", str(packages[0]), str(work / "files")])
        plugins = list((work / "files").rglob(PROGRAM))
        if done.status != 0 or len(plugins) != 1:
            raise Problem(f"The package {PACKAGE} holds no {PROGRAM}: {tail(done.output, 3)}")
        shutil.copyfile(plugins[0], target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _apt(host: Host, work: Path, *command: str) -> None:
    config = work / "apt.conf"
    if not config.exists():
        (work / "sources" / "plugin.sources").write_text(_source(_mirror(host)), encoding="utf-8")
        config.write_text(_config(work), encoding="utf-8")
    done = host.run(["apt-get", "-q", "-c", str(config), *command], cwd=work, timeout_s=180)
    if done.status != 0:
        raise Problem(
            f"nbdkit's VDDK plugin could not be fetched from Debian's {SUITE}"
            f" ({_key_hint(done.output)}apt-get says: {tail(done.output, 2)})."
        )


def _key_hint(output: str) -> str:
    if "NO_PUBKEY" in output or "is not signed" in output:
        return "install the newest debian-archive-keyring; "
    return ""


def _mirror(host: Host) -> str:
    """The Debian mirror of the system's own sources."""
    said = host.run(["apt-get", "update", "--print-uris"], timeout_s=60).output
    # A mirror of security updates or of somebody else's packages does not have the suite.
    found = re.search(r"^'([a-z]+\S*://\S*/debian)/dists/[^/']+/InRelease'", said, re.M)
    if found is None:
        raise Problem(
            "nbdkit's VDDK plugin could not be fetched: this system's apt names no Debian mirror;"
            f" set FAILBACK_VDDK_PLUGIN to a {PROGRAM}."
        )
    return found[1]


def _source(mirror: str) -> str:
    signed = f"Signed-By: {KEYRING}\n" if KEYRING.exists() else ""
    return (
        f"Types: deb\nURIs: {mirror}\nSuites: {SUITE}\nComponents: {COMPONENT}\n"
        f"Targets: Packages\n{signed}"
    )


def _config(work: Path) -> str:
    """Every folder our own, no hook of the system, and nothing that is not signed."""
    return (
        f'Dir::State "{work}";\n'
        f'Dir::State::lists "{work}/lists";\n'
        'Dir::State::status "/dev/null";\n'
        f'Dir::Cache "{work}";\n'
        f'Dir::Cache::archives "{work}/archives";\n'
        'Dir::Etc::sourcelist "/dev/null";\n'
        f'Dir::Etc::sourceparts "{work}/sources";\n'
        'Dir::Etc::preferences "/dev/null";\n'
        'Dir::Etc::preferencesparts "/dev/null";\n'
        'APT::Sandbox::User "";\n'
        'APT::Update::Error-Mode "any";\n'
        'APT::Get::AllowUnauthenticated "false";\n'
        'Acquire::AllowInsecureRepositories "false";\n'
        'Acquire::Retries "2";\n'
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
    )
