"""A server of S3 (moto) with one bucket and one access key, whose signatures it checks.

Says one line of JSON: endpoint, bucket, key id and secret; then one line for each that is asked for on the input:
the keys of the bucket, as JSON.
"""

import json
import os
import sys

# The first calls make the user; all later ones need a good signature and a right.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "attachments"
RIGHTS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


def client(service, endpoint, key, secret):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )


server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
endpoint = f"http://127.0.0.1:{port}"
client("s3", endpoint, "first", "first").create_bucket(Bucket=BUCKET)
iam = client("iam", endpoint, "first", "first")
iam.create_user(UserName="relay")
made = iam.create_access_key(UserName="relay")["AccessKey"]
iam.put_user_policy(UserName="relay", PolicyName="all", PolicyDocument=json.dumps(RIGHTS))
key, secret = made["AccessKeyId"], made["SecretAccessKey"]
print(json.dumps({"endpoint": endpoint, "bucket": BUCKET, "id": key, "secret": secret}), flush=True)

s3 = client("s3", endpoint, key, secret)
for _ in sys.stdin:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    print(json.dumps([found["Key"] for page in pages for found in page.get("Contents", [])]), flush=True)
