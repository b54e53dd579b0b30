/*
 * options.c - see options.h.
 */
#include "core/io/options.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const char help[] =
	"Usage: coordd --dir DIR --secret-file FILE [OPTIONS]\n"
	"One node of a coordfs cluster: keeps its share of the replicated state in DIR\n"
	"and mounts the cluster's tree.\n"
	"\n"
	"  --dir DIR              data directory, made if missing\n"
	"  --secret-file FILE     the cluster's secret: one line, at least 16 bytes\n"
	"  --mount DIR            mount point, made if missing; without it nothing is mounted\n"
	"  -o OPT[,OPT]           ro, allow_other (the default for root)\n"
	"\n"
	"First start of a node (ignored later):\n"
	"  --id N --peers 1=HOST:PORT,2=HOST:PORT,...\n"
	"                         a new cluster: the same list on every node\n"
	"  --join HOST:PORT       join a living cluster through that node\n"
	"\n"
	"  --listen HOST:PORT     own address for the other nodes and HTTP (default: as in "
	"--peers)\n"
	"  --ttl TIME             session TTL: how long a silent node keeps its locks (5s)\n"
	"  --timeo TIME           limit for operations that need the cluster (30s)\n"
	"  --election-timeout TIME  silence of a leader before an election, at least (300ms)\n"
	"  --heartbeat TIME       (100ms)\n"
	"  --lost-signal NAME     TERM, INT, HUP, KILL, USR1, USR2 or none: to holders of a lock "
	"whose\n"
	"                         session is lost (TERM)\n"
	"  --snapshot-log SIZE    take a snapshot each time the log has grown by this much (64M)\n"
	"  --log-level LEVEL      error, warn, info or debug (info)\n"
	"  --help, --version\n"
	"\n"
	"TIME is a number with ms, s or m. SIZE is a number with K, M or G.\n"
	"Runs in the foreground and logs to standard error. SIGTERM ends it cleanly.\n"
	"See coordd(8) and coordfs(5).\n";

enum {
	OPT_DIR = 256,
	OPT_SECRET,
	OPT_MOUNT,
	OPT_ID,
	OPT_PEERS,
	OPT_JOIN,
	OPT_LISTEN,
	OPT_TTL,
	OPT_TIMEO,
	OPT_ELECTION,
	OPT_HEARTBEAT,
	OPT_LOST_SIGNAL,
	OPT_SNAPSHOT_LOG,
	OPT_LOG_LEVEL,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{"dir", required_argument, NULL, OPT_DIR},
	{"secret-file", required_argument, NULL, OPT_SECRET},
	{"mount", required_argument, NULL, OPT_MOUNT},
	{"id", required_argument, NULL, OPT_ID},
	{"peers", required_argument, NULL, OPT_PEERS},
	{"join", required_argument, NULL, OPT_JOIN},
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"ttl", required_argument, NULL, OPT_TTL},
	{"timeo", required_argument, NULL, OPT_TIMEO},
	{"election-timeout", required_argument, NULL, OPT_ELECTION},
	{"heartbeat", required_argument, NULL, OPT_HEARTBEAT},
	{"lost-signal", required_argument, NULL, OPT_LOST_SIGNAL},
	{"snapshot-log", required_argument, NULL, OPT_SNAPSHOT_LOG},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{0},
};

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit time_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {0}};
static const struct unit size_units[] = {
	{"", 1}, {"K", 1u << 10}, {"M", 1u << 20}, {"G", 1u << 30}, {0}};

static bool parse_units(
	const char *text, const struct unit *units, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	char *end = NULL;
	uint64_t v;

	if (text[0] < '0' || text[0] > '9') {
		return false;
	}
	v = strtoull(text, &end, 10);
	for (; units->name != NULL; units++) {
		if (strcmp(end, units->name) == 0) {
			*ret_value = v * units->factor;
			return v <= max / units->factor && *ret_value >= min;
		}
	}
	return false;
}

static bool parse_time(const char *text, uint64_t min_ms, uint64_t max_ms, uint32_t *ret_ms)
{
	uint64_t ms;

	if (!parse_units(text, time_units, min_ms, max_ms, &ms)) {
		return false;
	}
	*ret_ms = (uint32_t)ms;
	return true;
}

static bool parse_signal(const char *text, int *ret_signal)
{
	static const struct {
		const char *name;
		int number;
	} signals[] = {{"none", 0}, {"TERM", SIGTERM}, {"INT", SIGINT}, {"HUP", SIGHUP},
		{"KILL", SIGKILL}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		if (strcmp(text, signals[i].name) == 0) {
			*ret_signal = signals[i].number;
			return true;
		}
	}
	return false;
}

static bool parse_level(const char *text, enum trace_level *ret_level)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		if (strcmp(text, levels[i]) == 0) {
			*ret_level = (enum trace_level)i;
			return true;
		}
	}
	return false;
}

static bool parse_mount_options(char *text, struct options *o)
{
	char *save = NULL;

	for (char *item = strtok_r(text, ",", &save); item != NULL;
		item = strtok_r(NULL, ",", &save)) {
		if (strcmp(item, "ro") == 0) {
			o->read_only = true;
		} else if (strcmp(item, "allow_other") == 0) {
			o->allow_other = true;
		} else if (strcmp(item, "rw") != 0) {
			return false;
		}
	}
	return true;
}

/* One option; false: its value is bad. */
static bool take(int opt, struct options *o)
{
	struct server_options *s = &o->server;

	switch (opt) {
	case OPT_DIR:
		s->dir = optarg;
		return true;
	case OPT_SECRET:
		s->secret_file = optarg;
		return true;
	case OPT_MOUNT:
		o->mountpoint = optarg;
		return true;
	case OPT_ID:
		return parse_units(optarg, (struct unit[]){{"", 1}, {0}}, 1, UINT32_MAX, &s->id);
	case OPT_PEERS:
		s->peers = optarg;
		return true;
	case OPT_JOIN:
		s->join = optarg;
		return true;
	case OPT_LISTEN:
		s->listen = optarg;
		return true;
	case OPT_TTL:
		return parse_time(optarg, 500, 3600000, &s->node.ttl_ms);
	case OPT_TIMEO:
		return parse_time(optarg, 100, 3600000, &s->node.timeo_ms);
	case OPT_ELECTION:
		return parse_time(optarg, 50, 60000, &s->node.raft.election_timeout_ms);
	case OPT_HEARTBEAT:
		return parse_time(optarg, 5, 10000, &s->node.raft.heartbeat_ms);
	case OPT_LOST_SIGNAL:
		return parse_signal(optarg, &o->lost_signal);
	case OPT_SNAPSHOT_LOG:
		return parse_units(optarg, size_units, 1u << 16, UINT64_C(1) << 40,
			&s->node.snapshot_log_bytes);
	case OPT_LOG_LEVEL:
		return parse_level(optarg, &o->log_level);
	case 'o':
		return parse_mount_options(optarg, o);
	default:
		UNREACHABLE();
	}
}

static int usage(const char *text, const char *what)
{
	(void)fprintf(stderr, "coordd: %s%s\nTry 'coordd --help'.\n", text, what);
	return 2;
}

static int check(const struct options *o)
{
	if (o->server.dir == NULL || o->server.secret_file == NULL) {
		return usage("--dir and --secret-file are needed", "");
	}
	if (o->server.join != NULL && (o->server.peers != NULL || o->server.id != 0)) {
		return usage("--join excludes --id and --peers: the cluster gives the id", "");
	}
	if (o->server.node.raft.heartbeat_ms * 2 > o->server.node.raft.election_timeout_ms) {
		return usage("--election-timeout must be at least twice the --heartbeat", "");
	}
	if (o->server.node.raft.election_timeout_ms * 3 > o->server.node.ttl_ms) {
		return usage("--ttl must be at least three times the --election-timeout: sessions "
			     "must outlive an election",
			"");
	}
	return -1;
}

static void defaults(struct options *o)
{
	memset(o, 0, sizeof *o);
	node_options_default(&o->server.node);
	o->server.node.version = COORDFS_VERSION;
	o->lost_signal = SIGTERM;
	o->log_level = TRACE_INFO;
	o->allow_other = geteuid() == 0;
}

int options_parse(int argc, char **argv, struct options *ret_options)
{
	int opt;
	int index = 0;

	defaults(ret_options);
	while ((opt = getopt_long(argc, argv, "o:", long_options, &index)) != -1) {
		if (opt == OPT_HELP) {
			(void)fputs(help, stdout);
			return 0;
		}
		if (opt == OPT_VERSION) {
			(void)printf("coordd %s\n", COORDFS_VERSION);
			return 0;
		}
		if (opt == '?') {
			return usage("see the message above", "");
		}
		if (!take(opt, ret_options)) {
			return usage("bad value: ", optarg);
		}
	}
	if (optind < argc) {
		return usage("unexpected argument: ", argv[optind]);
	}
	return check(ret_options);
}
