"""A real PostgreSQL server on this machine, for tests and trials: `Server()`, then `new_url()`."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


def find_programs():
    """The folder of initdb and pg_ctl, on the path or where Debian puts it; None without one."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


class Server:
    """A server on a free port of 127.0.0.1, in a folder of its own; stop it at the end.

    is_safe: flush to the disk, as in production. net: addresses that may connect too, such as
    "198.18.0.0/24". options: of the server, such as "port=5432".
    """

    def __init__(self, *options, is_safe=False, net=""):
        programs = find_programs()
        if programs is None:
            raise FileNotFoundError("no initdb: apt-get install postgresql")
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="realdamage-postgres-"))
        self._as = {"cwd": self._folder}
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self._folder, "postgres", "postgres")
            self._as |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._data, self._count = self._folder / "data", 0
        about = ("--auth=trust", "--username=realdamage", "--encoding=UTF8", "--locale=C")
        self._call("initdb", "--no-sync", *about)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = [f"port={self.port}", f"unix_socket_directories={self._folder}", *options]
        settings += [f"listen_addresses={'*' if net else '127.0.0.1'}"]
        settings += [f"fsync={'on' if is_safe else 'off'}"]
        if net:
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {net} trust\n")
        self._options = " ".join(f"-c {one}" for one in settings)
        self.start()

    def start(self):
        """Start it, at the first time or again."""
        self._call("pg_ctl", "start", "-w", "-l", str(self._folder / "log"), "-o", self._options)

    def stop(self):
        """End all connections and the server, as a power cut does."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate")

    def new_url(self):
        """The address of a new, empty database."""
        self._count += 1
        name = f"claims_{self._count}"
        connect = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "realdamage")
        self._run("createdb", *connect, name)
        return f"postgresql+psycopg://realdamage@127.0.0.1:{self.port}/{name}"

    def close(self):
        """Stop it and remove its folder."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, program, *options):
        self._run(program, "-D", str(self._data), *options)

    def _run(self, program, *options):
        command = [str(self._programs / program), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, **self._as)
