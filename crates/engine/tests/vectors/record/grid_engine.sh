#!/bin/bash
# Records a Grid Engine of one host with 8 slots, as an ordinary user. STOP=COMMAND that ends the master.
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
job() { local name=$1; shift; printf '#!/bin/bash\n#$ -S /bin/bash\n#$ -cwd\n#$ -o /dev/null -e /dev/null\n%s\n' "${BODY:-sleep 300}" > $name.sh; qsub -terse -N parsl.x.block-$name "$@" $name.sh; }
printf '#!/bin/bash\n#$ -S /bin/bash\n#$ -cwd\n#$ -o /dev/null\n#$ -e /dev/null\nsleep 300\n' > ok.sh
rec qstat-xml-none qstat -xml
rec qsub-ok qsub -terse ok.sh
rec qsub-plain qsub ok.sh
F=$(BODY='exit 3' job fail); D=$(BODY='exit 0' job done); K=$(BODY='kill -9 $$' job killed); T=$(job timeout -l h_rt=00:00:05); M=$(BODY='exit 100' job exit100); Z=$(BODY='exit 99' job exit99)
E=$(job error -o /nonexistent/dir/out); H=$(job held -h); R=$(job run); SU=$(job suspended); DEP=$(job dep -hold_jid parsl.x.block-run); FUT=$(job future -a 203001010000)
sleep 6
qmod -sj $SU >/dev/null 2>&1
BIG=$(job big -pe smp 8); NEVER=$(job never -pe smp 900); ARR=$(job arr -t 1-3 -h); sleep 4
rec qstat-xml-many qstat -xml
rec qacct-fail qacct -j $F
rec qacct-done qacct -j $D
rec qacct-killed qacct -j $K
rec qacct-timeout qacct -j $T
rec qacct-exit100 qacct -j $M
rec qacct-exit99 qacct -j $Z
rec qacct-unknown qacct -j 99999
rec qacct-running qacct -j $R
rec qdel-ok qdel $DEP $FUT
rec qdel-running qdel $R
rec qstat-xml-deleting qstat -xml
rec qdel-unknown qdel 99999
rec qdel-ended qdel $F
rec qdel-mixed qdel 99999 $H $F
sleep 5
rec qacct-deleted qacct -j $R
rec qacct-deleted-queued qacct -j $H
rec qsub-unknown-queue qsub -q nosuch.q -terse ok.sh
rec qsub-unknown-resource qsub -l nosuch=1 -terse ok.sh
rec qsub-bad-time qsub -l h_rt=abc -terse ok.sh
rec qsub-bad-name qsub -N a@b -terse ok.sh
rec qsub-bad-name-digit qsub -N 1abc -terse ok.sh
rec qsub-unknown-pe qsub -pe nosuch 2 -terse ok.sh
rec qsub-bad-option qsub -nosuch ok.sh
rec qsub-no-script qsub -terse /nonexistent.sh
rec qsub-project qsub -P nosuch -terse ok.sh
rec qsub-array qsub -t 1-3 -terse ok.sh
rec qsub-not-possible qsub -w e -l h_vmem=999999G -pe smp 900 -terse ok.sh
qdel -u tester >/dev/null
# The master is ended by root: STOP is the command.
$STOP; sleep 5
rec down-qstat qstat -xml
rec down-qsub qsub -terse ok.sh
rec down-qdel qdel 1
rec down-qacct qacct -j 3
