"""What the checks of this folder share: comparisons whose messages say what was expected, and the steps of a script."""

import sys
import time
import traceback


def equal(found, expected, what):
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def close(found, expected, tolerance, what):
    if not abs(found - expected) <= tolerance:
        raise AssertionError(f"{what}: expected {expected!r} within {tolerance}, found {found!r}")


def holds(text, part, what):
    if part not in text:
        raise AssertionError(f"{what}: {part!r} is not in {text!r}")


def true(condition, what):
    if not condition:
        raise AssertionError(f"{what}: not so")


def raises(kind, action, what):
    """The exception that an action raises."""
    try:
        result = action()
    except kind as error:
        return error
    raise AssertionError(f"{what}: expected {kind.__name__}, found {result!r}")


def run_all(checks, *arguments):
    """Runs functions in their order, also after a failure, so that one run shows everything to fix. Prints names and times."""
    failed = []
    for check in checks:
        start = time.perf_counter()
        try:
            note = check(*arguments)
        except Exception:
            failed.append(check.__name__)
            print(f"FAILED {check.__name__}\n{traceback.format_exc(limit=4)}", file=sys.stderr, flush=True)
            continue
        took = time.perf_counter() - start
        print(f"  {check.__name__}: {took:.1f} s{f', {note}' if note else ''}", flush=True)
    if failed:
        sys.exit(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
