# SPDX-License-Identifier: Apache-2.0
"""Plain text out of Debian packages, installed or not, for the scripts in tools/ and bench/."""
import gzip
import io
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile


def member(package, path):
    """The text of a package's file `path` (no slash in front; unpacked if it ends in .gz), or None: it cannot be had. Installed
    files are read where they are, others out of the package (slim images install no docs)."""
    data = installed(path) or in_package(package, path)
    if data is not None and path.endswith(".gz"):
        data = gzip.decompress(data)
    return data and data.decode("utf-8")


def installed(path):
    file = pathlib.Path("/", path)
    return file.read_bytes() if file.is_file() else None


def in_package(package, path):
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # apt's own download user must be able to read it
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, stderr=subprocess.DEVNULL, check=False)
        for file in pathlib.Path(folder).glob("*.deb"):
            tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(file)], check=True, capture_output=True).stdout
            with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
                return archive.extractfile(f"./{path}").read()
    return None
