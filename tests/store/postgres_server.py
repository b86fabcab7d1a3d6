"""A real PostgreSQL on a free port, in a directory of its own, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from ports import free_port


class PostgresServer:
    """Started with Debian's binaries; as root it runs under the user `postgres`, since the server refuses root."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        assert found, "PostgreSQL is missing: apt-get install postgresql"
        self._bin = found[-1].parent
        self.directory = Path(tempfile.mkdtemp(prefix="routines-pg-"))
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        else:
            self._as_user = []
        self.port = free_port()
        password = self.directory / "password"
        password.write_text("s3cret-word")
        password.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", "routines", "-A", "scram-sha-256", "--pwfile", str(password), "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_user, str(self._bin / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be inherited by the server and never end
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )
        log = self.directory / "log"
        assert done.returncode == 0, f"{program} failed: {log.read_text() if log.exists() else ''}"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", self._data, "-l", str(self.directory / "log"), "-o", options, "-w", "start")

    def kill(self) -> None:
        """Stop as a power cut would: no connection is told."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def url(self, database: str, *, password: str = "s3cret-word") -> str:
        return f"postgresql://routines:{password}@127.0.0.1:{self.port}/{database}"

    async def create_database(self, name: str) -> str:
        import asyncpg

        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return self.url(name)

    def remove(self) -> None:
        if (Path(self._data) / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.directory)
