"""Uploads a file with tuspy; run again with the same arguments it goes on where it was, by what tuspy stored.

Arguments: URL to create at, authorization, file, file for tuspy's notes. Says one line of JSON for the answer to the
creation (the body in hex), one for every chunk, and one at the end.
"""

import json
import sys

import requests
from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

CHUNK = 256 * 1024


def say(**line):
    print(json.dumps(line), flush=True)


# tuspy keeps the location alone; the path to download with is in the body.
create = requests.post


def listening(*arguments, **named):
    answer = create(*arguments, **named)
    say(created=answer.content.hex(), status=answer.status_code)
    return answer


requests.post = listening

url, authorization, file, notes = sys.argv[1:]
client = TusClient(url, headers={"authorization": authorization})
uploader = client.uploader(
    file, chunk_size=CHUNK, store_url=True, url_storage=FileStorage(notes), retries=20, retry_delay=0.1
)
say(begins=uploader.offset)
while uploader.offset < uploader.get_file_size():
    uploader.upload_chunk()
    say(offset=uploader.offset)
say(done=True)
