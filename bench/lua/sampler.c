/* For bench/inside.lua: in which Lua files a process spends its processor time.
 *
 * A timer that runs with that time says when to look, and the next call of a hook, which Lua makes every hundred
 * instructions, looks which Lua function it is in. So the time of a C function counts for the Lua function that called
 * it, and what the kernel does for it, too. A coroutine has the hook of the one that made it; debug.sethook cannot set
 * another.
 *
 * It is loaded before the program is, by LUA_INIT. */

#include <lauxlib.h>
#include <lua.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

enum { MAX_FILES = 512, MAX_NAME = 200, INSTRUCTIONS = 100, INTERVAL = 1000 /* microseconds */ };

static struct {
	char name[MAX_NAME];
	lua_Integer samples;
} files[MAX_FILES];

static size_t file_count;
static volatile sig_atomic_t due;

static void on_timer(int number)
{
	(void)number;
	due++;
}

static void count(const char *name, lua_Integer samples)
{
	size_t i = 0;
	while (i < file_count && strncmp(files[i].name, name, MAX_NAME - 1) != 0)
		i++;
	if (i == MAX_FILES)
		return;
	if (i == file_count)
		strncpy(files[file_count++].name, name, MAX_NAME - 1);
	files[i].samples += samples;
}

static void look(lua_State *L, lua_Debug *activation)
{
	if (due == 0)
		return;
	lua_Integer samples = due;
	due = 0;
	lua_getinfo(L, "S", activation);
	count(activation->source, samples);
}

static int l_sethook(lua_State *L)
{
	lua_sethook(lua_isthread(L, 1) ? lua_tothread(L, 1) : L, look, LUA_MASKCOUNT, INSTRUCTIONS);
	return 0;
}

static void set_timer(suseconds_t interval)
{
	struct itimerval timer = {.it_interval = {.tv_usec = interval}, .it_value = {.tv_usec = interval}};
	setitimer(ITIMER_PROF, &timer, NULL);
}

/* begins to count */
static int l_start(lua_State *L)
{
	(void)L;
	memset(files, 0, sizeof files);
	file_count = 0;
	due = 0;
	set_timer(INTERVAL);
	return 0;
}

/* stops, and returns a text: a line for each file, "SAMPLES SOURCE" */
static int l_stop(lua_State *L)
{
	set_timer(0);
	luaL_Buffer text;
	luaL_buffinit(L, &text);
	for (size_t i = 0; i < file_count; i++) {
		lua_pushfstring(L, "%I %s\n", (LUAI_UACINT)files[i].samples, files[i].name);
		luaL_addvalue(&text);
	}
	luaL_pushresult(&text);
	return 1;
}

__attribute__((visibility("default"))) int luaopen_sampler(lua_State *L);

int luaopen_sampler(lua_State *L)
{
	static const luaL_Reg functions[] = {{"start", l_start}, {"stop", l_stop}, {NULL, NULL}};
	struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
	sigaction(SIGPROF, &action, NULL);
	lua_sethook(L, look, LUA_MASKCOUNT, INSTRUCTIONS);
	lua_getglobal(L, "debug");
	lua_pushcfunction(L, l_sethook);
	lua_setfield(L, -2, "sethook");
	luaL_newlib(L, functions);
	return 1;
}
