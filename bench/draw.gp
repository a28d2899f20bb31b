# For bench/run, by gnuplot: draws its tables. Given: the folders tables and results; prosody, the one whose tables to
# draw where there is one for each

set terminal svg size 720, 320 font "sans-serif,12" background "white"
set grid ytics linecolor "#dddddd"
set border 3
set tics nomirror
set style fill solid
set yrange [0:*]

set title "Instructions of Prosody for a round trip, beyond those between two clients"
set output results."/round_trip.svg"
set boxwidth 0.6
set format y "%.0f k"
set xtics noenhanced font ",10"
set xzeroaxis linetype -1
set yrange [*:*]
unset key
subjects = "< awk 'NF == 8' ".tables."/round_trip_".prosody
plot subjects using ($0):($3 / 1000):xticlabels(stringcolumn(1)) every ::1 with boxes linecolor "#3465a4"

unset xzeroaxis
set yrange [0:*]

set title "Milliseconds a request, with 16 under way"
set output results."/latency.svg"
set format y "%.0f"
set key outside
set style data histograms
sixteen = "< awk '$2 == 16' ".tables."/latency_".prosody
plot sixteen using 5:xticlabels(stringcolumn(1)) title "p50" linecolor "#3465a4", \
	sixteen using 7 title "p99" linecolor "#f57900"

set style data linespoints
set key inside top left
set xtics auto enhanced font ",12"

set title "CPU time of what a request does in the core, in nanoseconds, by how many are pending"
set output results."/growth.svg"
set logscale x
set format x "10^{%L}"
plot tables."/growth" using 1:3 title "first of a requester", "" using 1:4 title "add", "" using 1:5 title "take", \
	"" using 1:6 title "take, scattered", "" using 1:7 title "expire"
unset logscale x
set format x "%g"

set title "Memory of Prosody at half of the peak rate, in MiB, by minutes"
set output results."/soak.svg"
set key inside center right
plot tables."/soak" using ($1 / 60):3 title "resident", "" using ($1 / 60):4 title "Lua's, garbage aside"
