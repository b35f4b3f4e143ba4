#!/bin/sh
# Base images from Debian's packages, for machines that reach no registry of images: as root, with
# mmdebstrap and buildah (apt-get install mmdebstrap buildah). Names what was made:
#
#   eval "$(tests/infra/base_images.sh)"
#   make image
#
# They stand in for the official ones: Debian's Python 3.11, and its PostgreSQL 15 with as much of the
# start script as compose.yaml uses (a role and a database made once, then the scripts of a folder).
set -eu

python=localhost/mirnet-base-python:bookworm
postgres=localhost/mirnet-base-postgres:bookworm
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

commit() { # IMAGE PACKAGES, then settings of buildah config
    image=$1
    packages=$2
    shift 2
    ! buildah inspect --type image "$image" >/dev/null 2>&1 || return 0
    mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$folder/rootfs.tar" >&2
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/rootfs.tar" / >&2
    rm "$folder/rootfs.tar"
    if [ -e "$folder/start" ]; then
        buildah copy --quiet --chmod 0755 "$container" "$folder/start" /usr/local/bin/start >&2
    fi
    [ "$#" = 0 ] || buildah config "$@" "$container" >&2
    buildah commit --quiet --rm "$container" "$image" >&2
}

commit "$python" python3,python3-venv,python3-pip,python-is-python3,ca-certificates

cat > "$folder/start" <<'START'
#!/bin/sh
set -eu
data=/var/lib/postgresql/data
bin=$(echo /usr/lib/postgresql/*/bin)
install --directory --owner=postgres --group=postgres --mode=0700 "$data"
install --directory --owner=postgres --group=postgres --mode=0775 /run/postgresql
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
if [ ! -s "$data/PG_VERSION" ]; then
    install --owner=postgres --mode=0400 /dev/null /tmp/password
    printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
    # shellcheck disable=SC2086 # options are words
    as_postgres "$bin/initdb" --pgdata="$data" --username="$POSTGRES_USER" \
        --pwfile=/tmp/password ${POSTGRES_INITDB_ARGS-}
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
    as_postgres "$bin/pg_ctl" --pgdata="$data" --wait --options="-c listen_addresses=''" start
    for script in /docker-entrypoint-initdb.d/*.sh; do
        [ ! -e "$script" ] || PGPASSWORD=$POSTGRES_PASSWORD as_postgres sh "$script"
    done
    as_postgres "$bin/pg_ctl" --pgdata="$data" --mode=fast --wait stop
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups \
    "$bin/postgres" -D "$data" -c listen_addresses='*'
START
commit "$postgres" postgresql --entrypoint '["/usr/local/bin/start"]' --port 5432

echo "export PYTHON_IMAGE=$python POSTGRES_IMAGE=$postgres"
