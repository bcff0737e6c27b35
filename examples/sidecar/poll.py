"""Polls a job until its time is over: a program that got its token once, at its start, and knows nothing of refreshing it.

Usage: API_URL=http://... API_TOKEN=... python3 poll.py SECONDS
"""

import os
import sys
import time
import urllib.error
import urllib.request

url = os.environ["API_URL"] + "/api/v1/jobs/1"
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["API_TOKEN"]})
begun = time.monotonic()
polls = 0

while time.monotonic() - begun < float(sys.argv[1]):
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = answer.read().decode()
    except urllib.error.HTTPError as error:
        print(f"  after {time.monotonic() - begun:.1f} s: {error.code} {error.read().decode().strip()}", flush=True)
        sys.exit(4 if error.code == 401 else 1)
    if polls % 4 == 0:
        print(f"  after {time.monotonic() - begun:.1f} s: {said}", flush=True)
    polls += 1
    time.sleep(0.25)

print(f"  done: {polls} polls, no 401")
