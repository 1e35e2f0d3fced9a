#!/bin/sh
# Starts the tracking server. The image and the tests start it by this file, so what is tested is what runs.
#
# From the environment (server.env.example says what each is):
#   PGHOST PGUSER PGPASSWORD PGDATABASE      the database; libpq's own names, so no URL holds a password
#   MLFLOW_FLASK_SERVER_SECRET_KEY           signs sessions and forms
#   MLFLOW_AUTH_ADMIN_PASSWORD               read once, when the first account is made
#   STILLHOUSE_ARTIFACTS                     folder that the server keeps artifacts in
#   STILLHOUSE_HOST STILLHOUSE_PORT          where it listens (127.0.0.1, 5000)
set -eu
here=$(cd "$(dirname "$0")" && pwd)

: "${PGDATABASE:?must name the database}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?must be set}"
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?must be set}"
: "${STILLHOUSE_ARTIFACTS:?must name the folder of the artifacts}"
host=${STILLHOUSE_HOST:-127.0.0.1}
port=${STILLHOUSE_PORT:-5000}

export MLFLOW_AUTH_CONFIG_PATH="$here/auth.ini"
# Without this ten processes start, eight of them for features that nothing here uses.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export MLFLOW_DISABLE_TELEMETRY=true

exec mlflow server \
    --host "$host" --port "$port" --workers "${STILLHOUSE_WORKERS:-1}" \
    --app-name basic-auth \
    --backend-store-uri "postgresql+psycopg:///" \
    --serve-artifacts --artifacts-destination "$STILLHOUSE_ARTIFACTS" \
    --allowed-hosts "${STILLHOUSE_ALLOWED_HOSTS:-localhost,localhost:*,127.0.0.1,127.0.0.1:*}"
