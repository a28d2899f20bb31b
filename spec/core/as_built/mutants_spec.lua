-- Whether each mutant of spec/mutants still applies to what it breaks, and says which specs find it. Whether these do, only
-- `make mutants` tells, which takes long.

local function lines_of(command)
	local lines = {};
	local pipe = assert(io.popen(command));
	for line in pipe:lines() do
		table.insert(lines, line);
	end
	return lines, pipe:close();
end

describe("the mutants", function ()
	it("apply to the files as they are", function ()
		local mutants = lines_of("ls spec/mutants/*.patch");
		assert.is_true(#mutants > 100);
		for _, mutant in ipairs(mutants) do
			local output, applies = lines_of(("patch --strip=1 --fuzz=0 --dry-run --force <%s 2>&1"):format(mutant));
			assert.is_true(applies, mutant..": "..table.concat(output, "\n"));
		end
	end);

	it("name specs that there are", function ()
		for _, line in ipairs(lines_of("grep --with-filename --max-count=1 '^fails: ' spec/mutants/*.patch")) do
			local mutant, specs = line:match("^(.-):fails: (.+)$");
			for spec in specs:gmatch("%S+") do
				assert.is_true(spec == "chaos" or os.rename(spec, spec) ~= nil, mutant..": "..spec);
			end
		end
		assert.same({}, lines_of("grep --files-without-match '^fails: ' spec/mutants/*.patch"));
	end);
end);
