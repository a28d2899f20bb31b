-- For tools/coverage: reads gcov's listings, and prints a test for each file of c_src and for all,
-- which fails where less than 95 per cent of the lines or of the branches were gone through, and
-- which these are not.
--
-- A line that has a branch nothing can reach says so above itself, in a comment that begins
-- with "unreachable:". Its branches do not count.

local MINIMUM = 95; -- per cent

local names, files = {}, {};

local function file_of(name)
	if not files[name] then
		files[name] = { lines = {} };
		table.insert(names, name);
	end
	return files[name];
end

-- A line of a header is listed once for each source that includes it.
local function read_listings()
	local file, line, is_marked;
	for text in io.lines() do
		local name = text:match("^%s*%-:%s*0:Source:(.*)");
		local count, number, code = text:match("^%s*([^:]+):%s*(%d+):(.*)");
		local branch, taken = text:match("^branch%s+(%d+) (.*)");
		if name then
			file = name:find("^c_src/") and file_of(name) or { lines = {} };
		elseif branch then
			line.branches[branch] = math.max(line.branches[branch] or 0, tonumber(taken:match("^taken (%d+)") or 0));
		elseif number and number ~= "0" then
			line = file.lines[tonumber(number)] or { branches = {}, is_marked = is_marked };
			file.lines[tonumber(number)] = line;
			if count ~= "-" then
				line.count = math.max(line.count or 0, tonumber(count:match("^%d+") or 0));
			end
			is_marked = code:match("^%s*/%* unreachable: ") ~= nil;
		end
	end
end

local function percentage(part, all)
	return all == 0 and 100 or part / all * 100;
end

-- Counts a line, and prints what is wrong with it
local function count_line(name, number, line, counts)
	if not line.count then
		return;
	end
	counts.lines = counts.lines + 1;
	if line.count > 0 then
		counts.covered_lines = counts.covered_lines + 1;
	else
		print(("# %s:%d: never"):format(name, number));
	end
	local branches, taken = 0, 0;
	for _, times in pairs(line.branches) do
		branches = branches + 1;
		taken = taken + (times > 0 and 1 or 0);
	end
	if line.is_marked and taken == branches then
		counts.marked_in_vain = true;
		print(("# %s:%d: said to be unreachable, but all of it is reached"):format(name, number));
	elseif not line.is_marked then
		counts.branches = counts.branches + branches;
		counts.taken = counts.taken + taken;
		if taken < branches then
			print(("# %s:%d: %d of %d branches never"):format(name, number, branches - taken, branches));
		end
	end
end

local tests = 0;

-- (name, counts) -> boolean: whether it is enough
local function report(name, counts)
	tests = tests + 1;
	local lines, branches = percentage(counts.covered_lines, counts.lines), percentage(counts.taken, counts.branches);
	local passed = lines >= MINIMUM and branches >= MINIMUM and not counts.marked_in_vain;
	print(("%s %d - %s: %.1f %% of %d lines, %.1f %% of %d branches"):format(passed and "ok" or "not ok", tests, name,
		lines, counts.lines, branches, counts.branches));
	return passed;
end

local function new_counts()
	return { lines = 0, covered_lines = 0, branches = 0, taken = 0 };
end

local function report_all()
	local all, passed = new_counts(), true;
	for _, name in ipairs(names) do
		local counts, numbers = new_counts(), {};
		for number in pairs(files[name].lines) do
			table.insert(numbers, number);
		end
		table.sort(numbers);
		for _, number in ipairs(numbers) do
			count_line(name, number, files[name].lines[number], counts);
		end
		passed = report(name, counts) and passed;
		for key in pairs(all) do
			all[key] = all[key] + counts[key];
		end
	end
	return report("c_src", all) and passed;
end

read_listings();
table.sort(names);
os.exit(#names > 0 and report_all());
