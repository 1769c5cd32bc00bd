"""Distribution packages: which ones, fetching them, what is in them, their licences."""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile

# Kinds of text: "wiki" messages of MediaWiki, "prose" pages, "interface" messages of programs.
HELP = "en-us zh-cn de es fr ko ja pt pt-br tr id it nl pl ru vi cs el hu".split()
OFFICE = "ar th bn he uk kk ro ne".split()
BROWSER = """zh-cn ar de es-es fr ko ja pt-br pt-pt tr id it nl pl ru vi th bn cs he uk ms ur kk el
    ro hu ne-np az""".split()
PROGRAMS = """anjuta-common apt aptitude-common brasero-common caja-common cinnamon-l10n dpkg
    epiphany-browser-data evolution-common filezilla-common geany-common gedit-common
    gnome-control-center-data gnome-shell-common gnome-software-common gnucash-common
    gnumeric-common gparted-common gramps gthumb-data libglib2.0-data libgtk-3-common
    libgtk2.0-common mate-control-center-common mate-panel-common mate-terminal-common
    nautilus-data orca phpmyadmin pidgin-data pluma-common python3-django shotwell-common
    vlc-l10n""".split()

QUICK = ["mediawiki"]
FULL = (
    ["mediawiki", "debian-handbook", "installation-guide-amd64", "gnome-user-docs"]
    + ["libreoffice-help-" + code for code in HELP]
    + ["manpages-ro", "manpages-uk"]
    + ["libreoffice-l10n-" + code for code in OFFICE]
    + ["firefox-esr-l10n-" + code for code in BROWSER]
    + PROGRAMS
)


class Missing(Exception):
    """No package could be had; the message says what to do."""


def _known(names):
    """Those of the names that apt knows."""
    shown = subprocess.run(
        ["apt-cache", "madison", *names], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        check=False, text=True)  # fmt: skip
    found = {line.split("|")[0].strip() for line in shown.stdout.splitlines()}
    return [name for name in names if name in found]


def _present(folder):
    """Name of package -> its file."""
    files = sorted(f for f in os.listdir(folder) if f.endswith(".deb"))
    return {f.split("_")[0]: os.path.join(folder, f) for f in files}


def fetch(names, folder, note):
    """Has every package that can be had in `folder`. Returns name -> file; those not in it could
    not be had."""
    os.makedirs(folder, exist_ok=True)
    have = _present(folder)
    wanted = [name for name in names if name not in have]
    if wanted and not (shutil.which("apt-get") and shutil.which("apt-cache")):
        raise Missing("apt-get is not here: packages come from Debian or Ubuntu; "
                      "give a corpus made elsewhere with --corpus DIR")  # fmt: skip
    partial = os.path.join(folder, "partial")
    known = _known(wanted) if wanted else []
    if known:
        note(f"fetching {len(known)} packages")
        os.makedirs(partial, exist_ok=True)
        if subprocess.run(["apt-get", "-q", "download", *known], cwd=partial, check=False,
                          capture_output=True).returncode:  # fmt: skip
            for name in known:  # one that fails takes the others with it: each on its own
                if name not in _present(partial):
                    subprocess.run(["apt-get", "-q", "download", name], cwd=partial, check=False,
                                   capture_output=True)  # fmt: skip
        for path in _present(partial).values():
            os.replace(path, os.path.join(folder, os.path.basename(path)))
        shutil.rmtree(partial)
    have = {name: path for name, path in _present(folder).items() if name in names}
    if not have:
        raise Missing("no package could be had: run `apt-get update` first, and see that "
                      "deb sources are set up")  # fmt: skip
    return have


def files(path):
    """(name, bytes) of every regular file in a package, in its order."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    damaged = False
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                if member.isfile():
                    yield member.name.lstrip("./"), tar.extractfile(member).read()
        process.stdout.read()  # what follows the last file, so that dpkg-deb can end well
    except tarfile.TarError:
        damaged = True
    finally:
        process.stdout.close()
        damaged = process.wait() != 0 or damaged
    if damaged:
        raise Missing(f"{path}: dpkg-deb can't read it; remove it to have it fetched again")


def describe(path, copyright_text):
    """Version, digest and the licences that the package's copyright file names."""
    shown = subprocess.run(["dpkg-deb", "-f", path, "Package", "Version"], check=True, text=True,
                           stdout=subprocess.PIPE).stdout  # fmt: skip
    fields = dict(line.split(": ", 1) for line in shown.splitlines())
    named = re.findall(r"^License: *(\S.*)$", copyright_text, re.MULTILINE)
    if not named:
        named = re.findall(r"common-licenses/([\w.+-]*\w)", copyright_text)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return {
        "version": fields["Version"],
        "sha256": digest,
        "licences": sorted(set(named)),
    }
