# 200, the key is enough. The headers show what is left for the key and for its team
curl -iw '\n' $URL/v1/models -H "api-key: $KEY"

# 401, no key
curl -iw '\n' $URL/v1/models

# log in and keep the session token
SESSION=$(curl -s $URL/login -H 'content-type: application/json' \
  -d '{"email": "'$EMAIL'", "password": "'$PASSWORD'"}' | sed -E 's/.*"session_token":"([^"]+)".*/\1/')

# 403, adding a note also requires the session
curl -iw '\n' $URL/v1/notes -H "api-key: $KEY" -H 'content-type: application/json' -d '{"text": "Hello"}'

# 201, key and session
curl -iw '\n' $URL/v1/notes -H "api-key: $KEY" -H "Authorization: Bearer $SESSION" \
  -H 'content-type: application/json' -d '{"text": "Hello"}'

# 200 until the tiny key is used up, then 429 until the next hour
for n in 1 2 3; do curl -si $URL/v1/models -H "api-key: $TINY_KEY" | head -n 1; done
curl -iw '\n' $URL/v1/models -H "api-key: $TINY_KEY"

# create a key that may only call the model and expires in an hour
CREATED=$(curl -s $URL/api-keys -H "Authorization: Bearer $SESSION" -H 'content-type: application/json' \
  -d '{"name": "local-dev", "scopes": ["completions:write"], "expires_in_s": 3600}')
NEW_ID=$(echo "$CREATED" | sed -E 's/.*"id":"([^"]+)".*/\1/')
NEW_KEY=$(echo "$CREATED" | sed -E 's/.*"token":"([^"]+)".*/\1/')

# 200, a streamed answer of 4 words to a prompt of 4 words: 104 tokens are reserved, and 8 are charged
curl -iNw '\n' $URL/v1/chat/completions -H "Authorization: Bearer $NEW_KEY" -H 'content-type: application/json' \
  -d '{"model": "parrot-1", "stream": true, "messages": [{"role": "user", "content": "Polly wants a cracker"}]}'

# 101, a WebSocket in the background, which says hello
curl -isN --max-time 5 $URL/v1/echo -H "api-key: $NEW_KEY" -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
  -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==' | cat -v &
sleep 1; echo

# 204, revoke the key: the WebSocket is closed with the reason
curl -iw '\n' -X DELETE $URL/api-keys/$NEW_ID -H "Authorization: Bearer $SESSION"
wait; echo

# 401, revoked
curl -iw '\n' $URL/v1/models -H "api-key: $NEW_KEY"

# a colleague signs up, and 200, may see the keys of the team
curl -so /dev/null $URL/signup -H 'content-type: application/json' \
  -d '{"email": "colleague@example.com", "password": "correct horse battery"}'
curl -iw '\n' -X PUT $URL/teams/$TEAM/members -H "Authorization: Bearer $SESSION" \
  -H 'content-type: application/json' -d '{"email": "colleague@example.com", "role": "viewer"}'

# 200, usage of this month by unit, and what a review would ask about the keys
curl -iw '\n' "$URL/api-keys/usage?by=unit" -H "Authorization: Bearer $SESSION"
curl -iw '\n' $URL/api-keys/audit -H "Authorization: Bearer $SESSION"

# 200, another plan, and with it other limits
curl -iw '\n' -X PUT $URL/teams/$TEAM/plan -H "Authorization: Bearer $SESSION" \
  -H 'content-type: application/json' -d '{"plan": "pro"}'
curl -iw '\n' $URL/api-keys/owners/current -H "api-key: $KEY"
