"""Drives a node with Bacalhau's Python SDK, as a user's script does. Run by tests/front_door/sdk.rs.

    BACALHAU_API_HOST=... BACALHAU_API_PORT=... sdk.py MODULE ENDLESS

MODULE is a WASM program that prints "hello from wasm" and ends, ENDLESS is one that never does.
"""

import base64
import io
import re
import sys
import tarfile
import time
import urllib.request

from bacalhau_apiclient.models.api_put_job_request import ApiPutJobRequest
from bacalhau_apiclient.models.job import Job
from bacalhau_apiclient.models.spec_config import SpecConfig
from bacalhau_apiclient.models.task import Task
from bacalhau_sdk.jobs import Jobs

ENDED = ("Completed", "Failed", "Stopped")
# What the SDK shows to its users: numbers as 1.4 has them.
COMPLETED, CANCELLED = 7, 9


def inline(path):
    with open(path, "rb") as module:
        text = base64.b64encode(module.read()).decode()
    return {"Source": {"Type": "inline", "Params": {"URL": "data:application/wasm;base64," + text}}}


def job(name, module, labels):
    params = {"EntryModule": inline(module), "Entrypoint": "_start", "Parameters": []}
    task = Task(
        name="main",
        engine=SpecConfig(type="wasm", params=params),
        publisher=SpecConfig(type="local", params={}),
    )
    return Job(name=name, type="batch", count=1, labels=labels, tasks=[task])


def submit(jobs, spec):
    answer = jobs.put(ApiPutJobRequest(job=spec))
    assert re.fullmatch(r"j-[0-9a-f-]{36}", answer.job_id), answer
    assert answer.evaluation_id, answer
    return answer.job_id


def wait(jobs, job_id, wanted):
    """Asks until the job is in one of these states. The test that runs this script has the patience."""
    while True:
        found = jobs.get(job_id).job.state.state_type
        if found in wanted:
            return found
        time.sleep(0.1)


def check_job(jobs, job_id):
    shown = jobs.get(job_id, include="executions,history").job
    assert (shown.id, shown.name, shown.type, shown.count) == (job_id, "sdk-demo", "batch", 1), shown
    assert shown.labels == {"team": "field", "sdk": "yes"}, shown.labels
    assert shown.tasks[0].engine.type == "wasm" and shown.tasks[0].publisher.type == "local", shown
    assert shown.create_time > 1_600_000_000 * 10**9 and shown.modify_time >= shown.create_time, shown


def check_lists(jobs, first, second):
    assert [item.id for item in jobs.list(limit=20).items] == [first, second], "oldest first"
    newest = jobs.list(limit=1, reverse=True)
    assert [item.id for item in newest.items] == [second] and newest.next_token, newest
    rest = jobs.list(limit=1, next_token=newest.next_token)
    assert [item.id for item in rest.items] == [first] and not rest.next_token, rest
    # The SDK's own method has no labels; the client below it has.
    for labels, wanted in [("team=field", [first]), ("team!=field", [second]), ("bacalhau_canary!=true", None)]:
        answer = list_with_labels(jobs, labels)
        assert answer == (wanted or [first, second]), (labels, answer)


def list_with_labels(jobs, labels):
    client = jobs.orchestrator_service.api_client
    answer = client.call_api(
        "/api/v1/orchestrator/jobs",
        "GET",
        query_params=[("labels", labels), ("limit", 20), ("reverse", False), ("next_token", "")],
        response_type="ApiListJobsResponse",
        _return_http_data_only=True,
    )
    return [item.id for item in answer.items]


def check_executions(jobs, job_id):
    (execution,) = jobs.executions(job_id).items
    assert execution.job_id == job_id and execution.id.startswith("e-"), execution
    assert execution.compute_state.state_type == COMPLETED, execution.compute_state
    output = execution.run_output
    assert (output.stdout, output.stderr, output.exit_code) == ("hello from wasm", "", 0), output
    assert output.stdout_truncated is False and output.stderr_truncated is False, output
    return execution.id


def check_history(jobs, job_id, execution_id):
    levels = {"JobLevel": 0, "ExecutionLevel": 0}
    for event in jobs.history(job_id, event_type="all").items:
        levels[event.type] += 1
        assert event.job_id == job_id and event.time, event
        if event.type == "ExecutionLevel":
            assert event.execution_id == execution_id and event.execution_state.new is not None, event
        else:
            assert event.job_state.new, event
    assert all(levels.values()), levels
    of_executions = jobs.history(job_id).items
    assert {event.type for event in of_executions} == {"ExecutionLevel"}, of_executions
    assert of_executions[-1].execution_state.new == COMPLETED, of_executions[-1]


def check_archive(jobs, job_id, execution_id):
    (result,) = jobs.results(job_id).items
    assert result.type == "urlDownload", result
    url = result.params["URL"]
    assert url.endswith(f"/{execution_id}.tar.gz"), url
    with urllib.request.urlopen(url) as answer:
        assert answer.headers.get("Content-Encoding") is None, answer.headers
        archive = answer.read()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            found[member.name] = tar.extractfile(member).read() if member.isfile() else None
    assert found == {".": None, "exitCode": b"0", "stderr": b"", "stdout": b"hello from wasm"}, found


def check_stop(jobs, job_id):
    wait(jobs, job_id, ("Running",))
    answer = jobs.stop(job_id, reason="enough of it")
    assert answer.evaluation_id, answer
    assert wait(jobs, job_id, ENDED) == "Stopped"
    # Stopped already: no error. Without a reason the SDK sends "None".
    assert jobs.stop(job_id) is not None
    told = [event.event.message for event in jobs.history(job_id, event_type="job").items]
    assert any("enough of it" in message for message in told), told
    while jobs.executions(job_id).items[0].compute_state.state_type != CANCELLED:
        time.sleep(0.1)


def main():
    module, endless = sys.argv[1:]
    jobs = Jobs()
    first = submit(jobs, job("sdk-demo", module, {"team": "field", "sdk": "yes"}))
    assert wait(jobs, first, ENDED) == "Completed"
    second = submit(jobs, job("sdk-endless", endless, {"team": "office"}))
    check_job(jobs, first)
    check_lists(jobs, first, second)
    execution = check_executions(jobs, first)
    check_history(jobs, first, execution)
    check_archive(jobs, first, execution)
    check_stop(jobs, second)
    print(f"the SDK ran {first} and stopped {second}")


main()
