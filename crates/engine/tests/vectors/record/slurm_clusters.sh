#!/bin/bash
# Records two clusters, test and other, of one slurmdbd. OTHER_PIDS=DIRECTORY of slurmctld.pid of other, which it ends; as root.
export LC_ALL=C
OUT=$(realpath "$1"); mkdir -p "$OUT"; cd "$(mktemp -d)" || exit 1
rec() { # rec NAME COMMAND ...: writes the file
  local name=$1 out err status; shift; out=$(mktemp) err=$(mktemp)
  timeout 60 "$@" > "$out" 2> "$err" < /dev/null; status=$?
  { printf '$'; for word in "$@"; do case $word in *[\ \|\'\"\(\&]*|'') printf " '%s'" "$word";; *) printf ' %s' "$word";; esac; done; echo
    cat "$out"; [ -s "$out" ] && [ -n "$(tail -c1 "$out")" ] && echo
    echo '--- stderr'; cat "$err"; echo "--- exit $status"; } > "$OUT/$name.txt"
  rm -f "$out" "$err"
}
F='%i|%T|%r|%S|%j'
sq() { local n=$1; shift; rec $n squeue --noheader --states=all "--format=$F" "--jobs=$1"; }
job() { local name=$1; shift; printf '#!/bin/bash\n%s\n' "${BODY:-sleep 300}" > $name.sh; sbatch --job-name=parsl.x.block-$name "$@" $name.sh | awk '{print $4}'; }
printf '#!/bin/bash\nsleep 300\n' > ok.sh
rec sbatch sbatch -M other --hold --job-name=parsl.x.block-there ok.sh
rec sbatch-either sbatch -M test,other --job-name=parsl.x.block-either ok.sh
rec sacct sacct -X --noheader --parsable2 --format=JobID,State,ExitCode,Cluster,JobName --jobs=1,2 --clusters=other,test
B=$(job both --hold)
OB=$(sbatch -M other --hold --job-name=parsl.x.block-there ok.sh | awk '{print $4}')
rec squeue squeue --states=all "--format=$F" --jobs=$OB,$B --clusters=other,test
rec squeue-one squeue --states=all "--format=$F" --jobs=$OB --clusters=other
rec squeue-unknown squeue --states=all "--format=$F" --jobs=99998,99999 --clusters=other,test
rec squeue-unknown-one squeue --states=all "--format=$F" --jobs=99999 --clusters=other,test
rec find squeue --states=all "--format=$F" --name=parsl.x.block-there --clusters=other,test
rec find-none squeue --states=all "--format=$F" --name=parsl.x.block-none --clusters=other,test
rec scancel scancel --clusters=other $OB
kill $(cat $OTHER_PIDS/slurmctld.pid); sleep 4
rec one-down squeue --states=all "--format=$F" --jobs=$OB,$B --clusters=other,test
rec one-down-only squeue --states=all "--format=$F" --jobs=$OB --clusters=other
rec one-down-scancel scancel --clusters=other $OB
scancel -u root
rec one-down-sbatch sbatch -M other ok.sh
