# bash completion for sealpost. Asks the program itself, so that it never lags behind: commands from the overviews,
# options from --help.
_sealpost()
{
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local words=() word
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		[[ $word == -* ]] && break
		words+=("$word")
	done
	case $previous in
	--data | --out)
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	--config | --cert | --key | --ca | --csr | --crl | --untrusted | --ready-file)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	esac
	local help choices
	help=$("${COMP_WORDS[0]}" "${words[@]:0:2}" --help 2> /dev/null) ||
		help=$("${COMP_WORDS[0]}" "${words[@]:0:1}" --help 2> /dev/null)
	if [[ $current == -* ]]; then
		choices=$(awk '$1 ~ /^--/ { print $1 }' <<< "$help")
	else
		choices=$(awk '/^  [a-z]/ { print $1 }' <<< "$help")
	fi
	mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
	[[ ${#COMPREPLY[@]} -gt 0 ]] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
}
complete -o filenames -F _sealpost sealpost
