-- The code in the documentation: what stands between ```LANGUAGE and ``` in the README and in doc.

local throwaway = require "spec.support.throwaway";

local code_blocks = {};

-- () -> a list of the files
function code_blocks.files()
	local files = {};
	for path in throwaway.read_command("ls README.markdown doc/*.markdown"):gmatch("[^\n]+") do
		table.insert(files, path);
	end
	return files;
end

-- (path) -> a list: { path, line (its number), heading (the last one before it), language, text }
function code_blocks.of(path)
	local blocks, block, heading, last, number = {}, nil, nil, nil, 0;
	for line in (throwaway.read_file(path).."\n"):gmatch("(.-)\n") do
		number = number + 1;
		local fence = line:match("^```(.*)$");
		if fence and block then
			block.text = table.concat(block, "\n").."\n";
			table.insert(blocks, block);
			block = nil;
		elseif fence then
			block = { path = path, line = number, heading = heading, language = fence };
		elseif block then
			table.insert(block, line);
		else
			heading = line:match("^#+ (.+)$") or line:find("^[=-]+$") and last ~= "" and last or heading;
		end
		last = line;
	end
	assert(not block, path..": a block of code has no end");
	return blocks;
end

-- (language) -> a list of all blocks in it
function code_blocks.all(language)
	local all = {};
	for _, path in ipairs(code_blocks.files()) do
		for _, block in ipairs(code_blocks.of(path)) do
			if not language or block.language == language then
				table.insert(all, block);
			end
		end
	end
	return all;
end

-- (path, heading) -> the text of the first block below that heading
function code_blocks.below(path, heading)
	for _, block in ipairs(code_blocks.of(path)) do
		if block.heading == heading then
			return block.text;
		end
	end
	error(("%s has no block of code below %q"):format(path, heading));
end

return code_blocks;
