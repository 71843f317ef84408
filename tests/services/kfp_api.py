"""A double of the API of Kubeflow Pipelines 2.17: a real HTTP server that checks what it is sent as the API does.

It keeps what it is given, runs nothing, and serves what a real one has answered about runs, recurring runs and versions
(`tests/kubeflow/recorded`). What it must change it changes as the API does:

- Terminating sets a run that is pending or running to CANCELING, then patches its Workflow; of any other run the answer
  is 400, and where there is no Workflow it is 500 with gRPC's code 13, and the run stays CANCELING for ever.
- A Workflow that is terminated fails; the run is then FAILED, and only its history has CANCELING.
"""

from __future__ import annotations

import email
import json
import re
import ssl
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.services.kfp_recorded import recorded, recording

_KINDS = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool,
          "STRUCT": dict, "LIST": list}  # fmt: skip
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}
EXPERIMENT = "1f2f84b6-5053-406a-ab6b-8e14bb5ee543"  # of the recorded runs
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
Report = dict[str, Any] | Callable[[], dict[str, Any]]


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class KfpApi:
    """The state of the double; tests read and set it.

    Attributes:
        token: What a caller must send; "" for anybody.
        multi_user: Whether it wants namespaces.
        login: Whether it answers with a login page, as a gateway before it does.
        failing: How many of the next requests it answers with 503.
        log: Logs by pod.
        interface: Whether it is the interface's server: it passes the API on, has logs under a path of its own, and
            answers what it does not know with its page.
        reports: What a run is like, by its id, or by "" for any: one for each time that it is asked for, of which the
            last stays. A function is called for it.
        without_workflow: Runs whose Workflow was deleted.
        calls: What it was asked: method and path.
    """

    url: str = ""
    token: str = ""
    forbidden: str = "forbidden"
    multi_user: bool = False
    login: bool = False
    interface: bool = False
    failing: int = 0
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)
    reports: dict[str, list[Report]] = field(default_factory=dict)
    without_workflow: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    _clock: int = 0

    def now(self) -> str:
        """A later time at every call, so that listings have an order."""
        self._clock += 1
        return _time(BEGIN + timedelta(seconds=self._clock))

    def answer(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> Any:
        """Answer one request."""
        self.calls.append(f"{method} {path}")
        self._authenticate(headers.get("Authorization", ""))
        for pattern, handler in _ROUTES.items():
            verb, _, form = pattern.partition(" ")
            if verb == method and (found := re.fullmatch(form, path)):
                given = (headers, body) if "upload" in path else (json.loads(body or "{}"),)
                return handler(self, query, *found.groups(), *(given if method == "POST" else ()))
        raise RefusedError(404, "Not Found")

    def _authenticate(self, sent: str) -> None:
        if sent == f"Bearer {self.forbidden}":
            raise RefusedError(403, "User 'ann' is not authorized with reason: no access to namespace team")
        if self.token and sent != f"Bearer {self.token}":
            raise RefusedError(401, "Request header error: there is no user identity header")

    def healthz(self, query: dict[str, str]) -> Any:
        return {"commit_sha": "0", "tag_name": "2.17.0", "multi_user": self.multi_user, "pipeline_store": "database"}

    def list_experiments(self, query: dict[str, str]) -> Any:
        self._namespace(query.get("namespace", ""))
        return _page("experiments", self.experiments, query, namespace=query.get("namespace", ""))

    def create_experiment(self, query: dict[str, str], body: dict[str, Any]) -> Any:
        self._namespace(body.get("namespace", ""))
        _require(body, "display_name")
        if any(each["display_name"] == body["display_name"] for each in self.experiments.values()):
            raise RefusedError(409, f"Failed to create a new experiment: {body['display_name']} already exists")
        return self._keep(self.experiments, "experiment_id", {"namespace": "", **body})

    def create_run(self, query: dict[str, str], body: dict[str, Any]) -> Any:
        _require(body, "display_name", "experiment_id")
        _known(self.experiments, body["experiment_id"], "Experiment")
        _check_parameters(self._spec(body), body.get("runtime_config", {}).get("parameters", {}))
        return self._keep(self.runs, "run_id", {"state": "PENDING", "service_account": "pipeline-runner", **body})

    def get_run(self, query: dict[str, str], run_id: str) -> Any:
        run = _known(self.runs, run_id, "Run")
        reports = self.reports.get(run_id) or self.reports.get("", [])
        if reports:
            report = reports.pop(0) if len(reports) > 1 else reports[0]
            run |= report() if callable(report) else report
        return run

    def terminate_run(self, query: dict[str, str], run_id: str, body: dict[str, Any]) -> Any:
        run = _known(self.runs, run_id, "Run")
        if run.get("state", "PENDING") not in ("PENDING", "RUNNING", "PAUSED"):
            raise RefusedError(400, f"Failed to terminate a run: Failed to terminate a run {run_id}. Row not found")
        run["state"] = "CANCELING"
        if run_id in self.without_workflow:
            raise RefusedError(
                500, f"Failed to terminate a run: InternalServerError: Failed to terminate run {run_id} due to error "
                'terminating its workflow: workflows.argoproj.io "steerlm-v2-97crk" not found',
            )  # fmt: skip
        history = [*run["state_history"], {"state": "CANCELING", "update_time": self.now()}]
        ended = {"state": "FAILED", "state_history": [*history, {"state": "FAILED", "update_time": self.now()}]}
        self.reports[run_id] = [{"state": "CANCELING"}, ended]
        return {}

    def keep_recorded(self, name: str, **changes: Any) -> str:
        """Take over a run that a real API has described, with what it belongs to; returns its id."""
        run = recorded(name) | changes
        self.experiments[EXPERIMENT] = {"experiment_id": EXPERIMENT, "display_name": "steerlm", "namespace": ""}
        self.runs[run["run_id"]] = run
        if "pipeline_spec" not in run:
            self.keep_recorded_versions()
        return str(run["run_id"])

    def keep_recorded_versions(self) -> None:
        """Take over the pipeline that a real API had, and its versions; of their tasks only the names are recorded."""
        names = recording("pipeline")
        for version in recording("pipeline-versions")["pipeline_versions"]:
            self.versions[version["pipeline_version_id"]] = {**version, "pipeline_spec": names}
            pipeline = {"pipeline_id": version["pipeline_id"], "name": "steerlm-v2", "display_name": "steerlm-v2"}
            self.pipelines[version["pipeline_id"]] = {**pipeline, "namespace": ""}

    def keep_recorded_schedule(self) -> dict[str, Any]:
        """Take over the recurring run that a real API had; returns it."""
        self.keep_recorded("running-scheduled")
        (run,) = recording("recurring-runs")["recurringRuns"]
        self.recurring[run["recurring_run_id"]] = run
        return dict(run)

    def list_runs(self, query: dict[str, str]) -> Any:
        _known(self.experiments, query["experiment_id"], "Experiment")
        return _page("runs", self.runs, query, experiment_id=query["experiment_id"])

    def read_log(self, query: dict[str, str], run_id: str, pod: str) -> Any:
        _known(self.runs, run_id, "Run")
        if pod not in self.log:
            raise RefusedError(400, f"Failed to read logs for run {run_id}: pods {pod} not found")
        return self.log[pod]

    def read_pod_log(self, query: dict[str, str]) -> Any:
        if not self.interface:
            raise RefusedError(404, "Not Found")
        return self.read_log(query, query["runid"], query["podname"])

    def list_pipelines(self, query: dict[str, str]) -> Any:
        return _page("pipelines", self.pipelines, query, namespace=query.get("namespace", ""))

    def create_pipeline(self, query: dict[str, str], body: dict[str, Any]) -> Any:
        _require(body, "display_name")
        namespace = body.get("namespace", "")
        if any((each["name"], each["namespace"]) == (body["name"], namespace) for each in self.pipelines.values()):
            raise RefusedError(409, f"Failed to create a new pipeline. The name {body['name']} already exists")
        return self._keep(self.pipelines, "pipeline_id", {**body, "namespace": namespace})

    def list_versions(self, query: dict[str, str], pipeline_id: str) -> Any:
        _known(self.pipelines, pipeline_id, "Pipeline")
        return _page("pipeline_versions", self.versions, query, pipeline_id=pipeline_id)

    def get_version(self, query: dict[str, str], pipeline_id: str, version_id: str) -> Any:
        return _known(self.versions, version_id, "PipelineVersion")

    def upload_version(self, query: dict[str, str], headers: Any, body: bytes) -> Any:
        if query.get("pipelineid") not in self.pipelines:
            raise RefusedError(400, "Failed to create a pipeline version")
        spec, *platform = yaml.load_all(_uploaded(headers, body), yaml.CSafeLoader)
        if "pipelineInfo" not in spec:
            raise RefusedError(400, "unknown template format: pipeline spec is invalid")
        same = {"pipeline_id": query["pipelineid"], "name": query["name"]}
        if any(same.items() <= each.items() for each in self.versions.values()):
            raise RefusedError(409, "Failed to create a pipeline version")
        version = {
            **same, "display_name": query["name"], "description": query.get("description", ""),
            "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec,
        }  # fmt: skip
        return self._keep(self.versions, "pipeline_version_id", version)

    def list_recurring(self, query: dict[str, str]) -> Any:
        self._namespace(query.get("namespace", ""))
        return _page("recurringRuns", self.recurring, query)

    def create_recurring(self, query: dict[str, str], body: dict[str, Any]) -> Any:
        _require(body, "display_name", "experiment_id")
        _known(self.experiments, body["experiment_id"], "Experiment")
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise RefusedError(400, "The max concurrency of the recurring run is out of range. Support 1-10.")
        cron = body["trigger"].get("cron_schedule", {}).get("cron")
        if cron is not None and not re.fullmatch(r"[\d*/,?-]+( ([\d*/,?-]|[A-Z]{3})+){5}", cron):
            raise RefusedError(400, f"Schedule cron is not a supported format. Error: Failed to parse {cron}")
        _check_parameters(self._spec(body), body.get("runtime_config", {}).get("parameters", {}))
        kept = {**body, "max_concurrency": str(body["max_concurrency"]), "service_account": "pipeline-runner"}
        if period := body["trigger"].get("periodic_schedule"):
            kept["trigger"] = {"periodic_schedule": {"interval_second": str(period["interval_second"])}}
        return self._keep(self.recurring, "recurring_run_id", kept)

    def delete_recurring(self, query: dict[str, str], run_id: str) -> Any:
        _known(self.recurring, run_id, "RecurringRun")
        del self.recurring[run_id]
        return {}

    def enable_recurring(self, query: dict[str, str], run_id: str, body: dict[str, Any]) -> Any:
        _known(self.recurring, run_id, "RecurringRun")["mode"] = "ENABLE"
        return {}

    def _spec(self, body: dict[str, Any]) -> dict[str, Any]:
        """The pipeline of a run: its own, or that of a version, the latest where none is named."""
        reference = body.get("pipeline_version_reference") or {}
        if "pipeline_spec" in body:
            found = body["pipeline_spec"]
        elif reference.get("pipeline_version_id"):
            found = _known(self.versions, reference["pipeline_version_id"], "PipelineVersion")["pipeline_spec"]
        else:
            _known(self.pipelines, reference.get("pipeline_id", ""), "Pipeline")
            found = [v for v in self.versions.values() if v["pipeline_id"] == reference["pipeline_id"]][-1]
            found = found["pipeline_spec"]
        return found.get("pipeline_spec", found)

    def _namespace(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise RefusedError(400, "Invalid input error: Namespace is empty. Please specify a valid namespace")
        if namespace and not self.multi_user:
            raise RefusedError(400, "Invalid input error: In single-user mode, namespace must be empty")

    def _keep(self, where: dict[str, dict[str, Any]], key: str, value: dict[str, Any]) -> dict[str, Any]:
        kept = {**value, key: str(uuid.uuid4()), "created_at": self.now()}
        where[kept[key]] = kept
        return kept


_ROUTES: dict[str, Any] = {
    "GET /apis/v2beta1/healthz": KfpApi.healthz,
    "GET /apis/v2beta1/experiments": KfpApi.list_experiments,
    "POST /apis/v2beta1/experiments": KfpApi.create_experiment,
    "GET /apis/v2beta1/runs": KfpApi.list_runs,
    "POST /apis/v2beta1/runs": KfpApi.create_run,
    "GET /apis/v2beta1/runs/([^/:]+)": KfpApi.get_run,
    "POST /apis/v2beta1/runs/([^/:]+):terminate": KfpApi.terminate_run,
    "GET /apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log": KfpApi.read_log,
    "GET /k8s/pod/logs": KfpApi.read_pod_log,
    "GET /apis/v2beta1/pipelines": KfpApi.list_pipelines,
    "POST /apis/v2beta1/pipelines": KfpApi.create_pipeline,
    "POST /apis/v2beta1/pipelines/upload_version": KfpApi.upload_version,
    "GET /apis/v2beta1/pipelines/([^/]+)/versions": KfpApi.list_versions,
    "GET /apis/v2beta1/pipelines/([^/]+)/versions/([^/]+)": KfpApi.get_version,
    "GET /apis/v2beta1/recurringruns": KfpApi.list_recurring,
    "POST /apis/v2beta1/recurringruns": KfpApi.create_recurring,
    "DELETE /apis/v2beta1/recurringruns/([^/:]+)": KfpApi.delete_recurring,
    "POST /apis/v2beta1/recurringruns/([^/:]+):enable": KfpApi.enable_recurring,
}


@contextmanager
def kfp_api(certificate: Path | None = None, address: str = "127.0.0.1") -> Iterator[KfpApi]:
    """Serve the double on a free port of an address; with a certificate and its key in one file, over TLS."""
    api = KfpApi()
    server = _Server((address, 0), type("Handler", (_Handler,), {"api": api}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    api.url = f"{'https' if certificate else 'http'}://{address}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that goes away: some tests interrupt it."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    api: KfpApi
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        where = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(where.query).items()}
        if self.api.login or (self.api.interface and not where.path.startswith(("/apis/v2beta1/", "/k8s/"))):
            return self._send(200, "text/html; charset=utf-8", "<html>Log in</html>")
        if self.api.failing:
            self.api.failing -= 1
            return self._send(503, "text/plain", "no healthy upstream")
        try:
            found = self.api.answer(self.command, where.path, query, self.headers, body)
        except RefusedError as error:
            said = {"error": str(error), "code": _CODES[error.status], "message": str(error), "details": []}
            return self._send(error.status, "application/json", json.dumps(said))
        if isinstance(found, str):
            return self._send(200, "text/plain", found)
        return self._send(200, "application/json", json.dumps(found))

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _known(where: dict[str, dict[str, Any]], key: str, kind: str) -> dict[str, Any]:
    if key not in where:
        raise RefusedError(404, f"ResourceNotFoundError: {kind} {key} not found")
    return where[key]


def _require(body: dict[str, Any], *names: str) -> None:
    for name in names:
        if not body.get(name):
            raise RefusedError(400, f"Invalid input error: {name} is empty. Please specify a valid one")


def _page(kind: str, where: dict[str, dict[str, Any]], query: dict[str, str], **equal: str) -> dict[str, Any]:
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        if predicate["operation"] not in ("EQUALS", 1):
            raise RefusedError(400, f"Invalid input error: operation {predicate['operation']}")
        equal |= {predicate["key"]: predicate["stringValue"]}
    found = [each for each in where.values() if all(each[key] == value for key, value in equal.items())]
    if query.get("sort_by") == "created_at desc":
        found.sort(key=lambda each: each["created_at"], reverse=True)
    found = found[: int(query.get("page_size") or 20)]
    return {kind: found, "total_size": len(found)} if found else {}


def _check_parameters(spec: dict[str, Any], parameters: dict[str, Any]) -> None:
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in parameters.items():
        if name not in declared:
            raise RefusedError(400, f"Invalid input error: parameter {name} is not an input of the pipeline")
        if not isinstance(value, _KINDS[declared[name]["parameterType"]]):
            raise RefusedError(400, f"Invalid input error: input parameter {name} has another type")
    for name, each in declared.items():
        if name not in parameters and not each.get("isOptional"):
            raise RefusedError(400, f"Invalid input error: parameter {name} is not optional, yet has no value")


def _uploaded(headers: Any, body: bytes) -> str:
    message = email.message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
    for part in message.get_payload():
        if part.get_param("name", header="Content-Disposition") == "uploadfile":
            return part.get_payload(decode=True).decode()
    raise RefusedError(400, "Failed to read pipeline from file")
