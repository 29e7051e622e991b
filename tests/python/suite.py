"""What the suites share: where the server is, and how their tests are run.

Each function `test_…` of a suite is one test.
"""

import sys
import traceback

BASE_URL, KEY, MODEL = sys.argv[1:4]


def run_tests(suite):
    """Runs the tests among a module's names, prints a line for each, and exits with 1 when any failed."""
    tests = [(name, function) for name, function in suite.items() if name.startswith("test_")]
    failed = sum(not passes(name, function) for name, function in tests)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not tests else 0)


def passes(name, function):
    try:
        function()
        print(f"ok      {name}", flush=True)
        return True
    except Exception:
        print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        return False


def expect(error, call, **fields):
    """The call must fail with this error of the client; the error is given back."""
    try:
        call(**fields)
    except error as caught:
        return caught
    raise AssertionError(f"no {error.__name__} for {fields}")
