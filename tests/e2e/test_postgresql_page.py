"""Runs every command of docs/postgresql.md, against a server with TLS and passwords, and compares what they print with the page."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import guide_blocks
from certificate_authority import certify
from postgres import RUN_AS, Postgres
from testbed import ROOT, binary

PAGE = ROOT / "docs" / "postgresql.md"
# A user that every system has, and that is nobody else's here: it plays the service's.
USER = "daemon"
# `sudo` and `systemctl` of this machine, as far as the page goes; the users are real.
PLAYED = f"""
as_user() {{ local user=$1; shift; setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"; }}
sudo() {{
    case "$1 $2" in
        "-u postgres") shift 2; as_user {RUN_AS} env PGHOST="$SOCKETS" PGPORT="$PORT" "$@" ;;
        "-u farcall") shift 2; as_user {USER} env HOME="$PLACE/var/lib/farcall" "$@" ;;
        *) "$@" ;;
    esac
}}
systemctl() {{
    if [ "$1" = start ]; then
        : > "$PLACE/service.log"
        sudo -u farcall setsid sh -c 'echo $$ > "$0/pid"; exec farcall serve --data-dir "$1" --http-listen 127.0.0.1:0 \
            --amqp-listen 127.0.0.1:0' "$PLACE/run" "$PLACE/var/lib/farcall" > "$PLACE/service.log" 2>&1 < /dev/null &
        for _ in $(seq 300); do grep -q "farcall is ready" "$PLACE/service.log" && return; sleep 0.1; done
        cat "$PLACE/service.log"
        return 1
    fi
    kill "$(cat "$PLACE/run/pid")" || true
    for _ in $(seq 300); do kill -0 "$(cat "$PLACE/run/pid")" 2> /dev/null || return 0; sleep 0.1; done
    return 1
}}
"""
ACCESS = """
local all all trust
host all postgres 127.0.0.1/32 trust
hostssl farcall farcall 127.0.0.1/32 scram-sha-256
"""


def secure(server):
    """Lets the role of the page in with TLS and a password only."""
    keys = server.directory / "keys"
    keys.mkdir()
    certify(keys)
    for path in (keys, *keys.iterdir()):
        shutil.chown(path, RUN_AS, RUN_AS)
    (keys / "key.pem").chmod(0o600)
    (server.data / "pg_hba.conf").write_text(ACCESS)
    server.configure(ssl_cert_file=keys / "certificate.pem", ssl_key_file=keys / "key.pem", ssl="on")
    return keys / "ca.pem"


def test_the_page_does_what_it_says():
    assert os.geteuid() == 0, "one user can't become another: run this as root"
    blocks = [block for block in guide_blocks.blocks(PAGE) if block.language == "sh"]
    assert len(blocks) == 10
    admin = next(line for line in (ROOT / "docs" / "guide" / "service.md").read_text().splitlines() if line.startswith("admin() "))
    # Not below pytest's own directory, which is root's alone.
    with tempfile.TemporaryDirectory() as directory, Postgres("page") as server:
        place = Path(directory)
        authority = secure(server)
        for path in (place, place / "var", place / "var" / "lib", place / "etc", place / "etc" / "farcall"):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        (place / "run").mkdir()
        shutil.chown(place / "run", USER, USER)
        shutil.copy(authority, place / "etc" / "farcall" / "database-ca.pem")
        (place / "etc" / "farcall" / "database-ca.pem").chmod(0o644)
        shutil.copy(binary("farcall"), place / "farcall")

        def here(text):
            for page, ours in [
                ("/var/lib", f"{place}/var/lib"),
                ("/etc/farcall", f"{place}/etc/farcall"),
                ("-o farcall", f"-o {USER}"),
                ("--host db.example.org", f"--host localhost --port {server.port}"),
                ("db.example.org:5432", f"localhost:{server.port}"),
                ("db.example.org", f"localhost:{server.port}"),
            ]:
                text = text.replace(page, ours)
            return text

        def run(*commands, stdin=""):
            path = f"{place}:{server.programs}:{os.environ['PATH']}"
            known = {"PATH": path, "PLACE": str(place), "SOCKETS": str(server.directory), "PORT": str(server.port)}
            script = "\n".join(["set -e", PLAYED, here(admin), *map(here, commands)])
            command = ["setsid", "--wait", "bash", "-c", script]
            done = subprocess.run(command, env=known, cwd="/", input=stdin, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
            return done.stdout

        try:
            run("sudo install -d -m 700 -o farcall /var/lib/farcall", "sudo systemctl start farcall")
            run("admin user add alice@example.org --no-password")
            for block in blocks:
                printed = run(block.text, stdin="PASSWORD\nPASSWORD\n")
                assert block.shown is None or guide_blocks.shows(printed, here(block.shown), {}), f"{block}: {printed}"
                if "systemctl start" in block.text:
                    assert "alice@example.org" in run("admin user list"), f"{block}"
            assert "alice@example.org" in run("sudo -u postgres psql --tuples-only --command 'SELECT username FROM identities' farcall")
        finally:
            run("sudo systemctl stop farcall")
